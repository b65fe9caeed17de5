"""Import jobs of an installation whose workers are other processes."""

from catalog.revisions import list_revisions
from tests.faults.crew import wait_until


def submit(installation, task, *, model="pets", seed=7):
    return installation.submit_import(task, installation.upload_checkpoint(seed), model=model)


def wait_for(installation, *job_ids):
    """The jobs, all of which have succeeded."""
    wait_until(lambda: all(installation.find(job_id).is_finished for job_id in job_ids), "the jobs' ends")
    jobs = [installation.find(job_id) for job_id in job_ids]
    assert {job.state for job in jobs} == {"succeeded"}, [job.error for job in jobs]
    return jobs


def revisions_of(installation, model):
    return installation.read(list_revisions, model)
