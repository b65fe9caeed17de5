"""Where a round's workers die: (module, function in it, first and last call to die in, after making it?)."""

from tests.installing import ON_SERVERS

_FILES = "store.blobs.files"
_PUBLISHING = "worker.jobs.publishing"
_ENGINE = "catalog.dbos_queue"

_BLOBS_IN_FILES = {
    "in the middle of a blob": (_FILES, "_FileWriter._append", 1, 8, True),
    "before a blob is there": (_FILES, "_FileWriter._publish", 1, 6, False),
    "after each blob": (_FILES, "_FileWriter._publish", 1, 6, True),
    "before the upload is copied": (_FILES, "FileBlobs.copy_to", 1, 1, False),
    "after the upload is copied": (_FILES, "FileBlobs.copy_to", 1, 1, True),
}
_OBJECTS, _CACHE = "store.blobs.objects", "store.blobs.cache"
_BLOBS_IN_OBJECTS = {
    "in the middle of a blob": (_OBJECTS, "_ObjectWriter._append", 1, 8, True),
    "before each upload": (_OBJECTS, "ObjectBlobs.put_object", 1, 6, False),
    "after each upload": (_OBJECTS, "ObjectBlobs.put_object", 1, 6, True),
    "in the middle of a download": (_OBJECTS, "ObjectBlobs._range", 1, 4, True),
    "before a download is kept": (_CACHE, "BlobCache.adopt", 1, 6, False),
    "after a download is kept": (_CACHE, "BlobCache.adopt", 1, 6, True),
    "while room is made in the cache": (_CACHE, "BlobCache._make_room", 1, 4, False),
}
_STEPS = {
    "claiming": (_ENGINE, "claim_job", 1, 2, True),
    "claimed": (_ENGINE, "DbosRunner._claim", 1, 2, True),
    "measuring": ("worker.jobs.learning", "measure_base_and_individual", 1, 2, True),
    "making prototypes": ("worker.jobs.learning", "make_prototypes", 1, 2, True),
    "before folding": (_PUBLISHING, "_fold", 1, 2, False),
    "in the middle of folding": ("store.folding", "encode_mask", 1, 6, True),
    "folded": (_PUBLISHING, "_fold", 1, 2, True),
    "before the transaction": (_PUBLISHING, "_publish", 1, 2, False),
    "inside the transaction, nothing written": (_PUBLISHING, "publish_revision", 1, 2, False),
    "inside the transaction, all written": (_PUBLISHING, "publish_revision", 1, 2, True),
    "after the transaction": (_PUBLISHING, "_publish", 1, 2, True),
    "before the step is remembered": ("worker.jobs.learning", "_publish_once", 1, 2, True),
    "after the step is remembered": ("worker.jobs.learning", "clean_up", 1, 2, False),
    "cleaning up": ("worker.workbench", "Workbench.discard_scratch", 1, 2, False),
    "cleaned up": ("worker.jobs.learning", "clean_up", 1, 2, True),
    "inside the last transaction": ("catalog.running_job", "finish_job", 1, 2, True),
    "after the last transaction": ("catalog.running_job", "RunningJob.finish", 1, 2, True),
}
TAKING_OVER = {
    "taking over, signed off": (_ENGINE, "sign_off", 1, 1, True),
    "taking over, requeued": (_ENGINE, "requeue_jobs", 1, 1, True),
    "taken over": (_ENGINE, "Hands.take_over", 1, 1, True),
}
"""Reached only by a worker that finds another dead."""

POINTS = (_BLOBS_IN_OBJECTS if ON_SERVERS else _BLOBS_IN_FILES) | _STEPS | TAKING_OVER

NAMES = tuple(POINTS)
"""Every round has one of these, in turn; what else happens in it is drawn."""


def calls_of(name):
    """The calls in which a worker may die there."""
    _, _, first, last, _ = POINTS[name]
    return range(first, last + 1)


EVERY = tuple((name, call) for name in NAMES for call in calls_of(name))


def order_of(name, call):
    """What `die_in` wants."""
    module, path, _, _, is_made = POINTS[name]
    return {"module_name": module, "path": path, "call": call, "is_made": is_made}
