"""The settings of one installation, read from the environment (`CONDU_...`) by api, worker and cli alike."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from catalog.places import check_database_url, check_networks, check_objects_url, check_sources
from store.blobs import BlobPlace

MEBIBYTE = 2**20
GIBIBYTE = 2**30
MIN_PEPPER_CHARACTERS = 32

Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _split(given: Any) -> Any:
    return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


def _check_pepper(pepper: SecretStr) -> SecretStr:
    if len(pepper.get_secret_value()) < MIN_PEPPER_CHARACTERS:
        raise ValueError(
            f"a pepper of fewer than {MIN_PEPPER_CHARACTERS} characters can be guessed: write what "
            "`python3 -c 'import secrets; print(secrets.token_hex(32))'` prints"
        )
    return pepper


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Comma separated in the environment."""


class Settings(BaseSettings):
    """Every knob of an installation; the environment variable is `CONDU_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="CONDU_", frozen=True, env_ignore_empty=True)

    data: Path = Field(
        Path("condu-data"), description="Folder with the catalog, the blobs and scratch files."
    )
    database_url: Annotated[str, AfterValidator(check_database_url)] | None = Field(
        None,
        repr=False,  # it may hold a password
        description="Database of the catalog, `postgresql://user:password@host/name`; without it SQLite "
        "inside the data folder.",
    )
    objects_url: Annotated[str, AfterValidator(check_objects_url)] | None = Field(
        None,
        description="Where blobs are kept: `s3://bucket/prefix` or `file:///folder`; without it inside the "
        "data folder.",
    )
    objects_endpoint: str | None = Field(
        None, description="Where an object storage that is not Amazon's answers: `http://host:port`."
    )
    objects_region: str = Field("us-east-1", description="Region of the bucket.")
    objects_access_key: SecretStr | None = Field(
        None, description="Access key of the object storage; without it the usual AWS_ variables and roles."
    )
    objects_secret_key: SecretStr | None = Field(None, description="The secret that belongs to it.")
    blob_cache_bytes: Bytes = Field(
        16 * GIBIBYTE, description="Bytes of blobs from object storage that are kept in `DATA/cache`."
    )

    host: str = Field("127.0.0.1", description="Address that the api listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the api listens on; 0 takes any free one.")
    url: str = Field("http://127.0.0.1:8000", description="Where the client commands find the api.")

    require_keys: bool = Field(
        default=False,
        description="Whether an API key is needed on a loopback address, too; on any other one always is.",
    )
    key_pepper: Annotated[SecretStr, AfterValidator(_check_pepper)] | None = Field(
        None,
        description="The secret that API keys are hashed with, the same on every machine; without it the "
        "file `pepper` in the data folder.",
    )
    api_key: SecretStr | None = Field(None, description="The API key that the client commands send.")
    requests_per_minute: Count = Field(
        1200, description="Requests a minute of one API key that has no rate of its own, in one api process."
    )
    session_s: Seconds = Field(12 * 3600.0, description="How long a browser stays signed in.")
    secure_cookies: bool | None = Field(
        None,
        description="Whether browsers send the session's cookie over https only; without it, unless the "
        "address is loopback.",
    )
    open_metrics: bool = Field(
        default=False, description="Whether /metrics needs no key where everything else does."
    )
    trusted_proxies: Annotated[Names, AfterValidator(check_networks)] = Field(
        (), description="Addresses or networks, comma separated, whose X-Forwarded-For is believed."
    )
    fetch_from: Annotated[Names, AfterValidator(check_sources)] = Field(
        (),
        description="What data sets and weights may be fetched from: `https://host/path/`, comma separated; "
        "`https://*.host/` takes all below a host.",
    )
    fetch_networks: Annotated[Names, AfterValidator(check_networks)] = Field(
        (), description="Private networks, comma separated, that may be fetched from beside the internet."
    )
    fetch_timeout_s: Seconds = Field(3600.0, description="A fetch that takes longer is given up.")

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; auto takes CUDA where there is one.")
    num_threads: Count | None = Field(
        None,
        description="CPU threads of torch and of the store's kernels; without it torch decides, and the api "
        "takes one fewer, so that decoding has a core.",
    )
    training_processes: Count = Field(
        1, description="Processes that train one task together; on CUDA each has a GPU, from the device on."
    )
    # The base and the four experts of an answer without a task, at the size of a ViT-B.
    expert_cache_bytes: Bytes = Field(
        4 * GIBIBYTE, description="Bytes of reconstructed experts kept in memory."
    )
    class_weight_cache_bytes: Bytes = Field(
        256 * MEBIBYTE, description="Bytes of class weights kept in memory."
    )

    preload: Names = Field(
        (), description="`model` or `model/task`, comma separated: brought into memory when the api starts."
    )
    pin: Names = Field(
        (), description="`model` or `model/task`, comma separated: kept in memory, through new revisions."
    )
    expert_idle_s: Seconds | None = Field(
        None, description="Experts that nobody used for this long leave the memory; without it, none does."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="What image towers of experts compute in; bfloat16 answers nearly the same."
    )
    compile: bool = Field(default=False, description="Whether image towers go through torch.compile.")
    max_batch: Count = Field(32, description="Most images that the device computes at once.")
    max_wait_s: Annotated[float, Field(ge=0, le=10)] = Field(
        0.002, description="How long a batch that is not full waits for images that are being read."
    )
    max_queue: Count = Field(
        2048, description="Most images that may wait for the device; more are refused with 503."
    )
    answer_timeout_s: Seconds = Field(60.0, description="A classify request that takes longer ends with 504.")
    hang_timeout_s: Seconds = Field(
        120.0, description="A device that is silent for this long is given up and started anew."
    )
    decode_threads: Count | None = Field(
        None, description="Threads that decode images; without it, one a processor."
    )

    lease_s: Seconds = Field(30.0, description="A worker that was silent for this long is taken for dead.")
    beat_s: Seconds = Field(5.0, description="How often a worker says that it is alive.")
    poll_s: Seconds = Field(0.5, description="How often a worker looks for queued jobs.")
    stop_timeout_s: Seconds = Field(10.0, description="How long a stopping worker waits for its running job.")
    max_attempts: Count = Field(3, description="How often a job is started before it is given up.")

    upload_limit_bytes: Bytes = Field(16 * GIBIBYTE, description="Largest weights file or archive taken.")
    image_limit_bytes: Bytes = Field(
        32 * MEBIBYTE, description="Largest single image taken for classification."
    )
    upload_ttl_s: Seconds = Field(
        7 * 86400.0, description="An uploaded data set that no job has used expires after this long."
    )
    max_images: Count = Field(256, description="Most images in one classify request.")
    max_image_pixels: Count = Field(
        50_000_000, description="Most pixels of one image; more is taken for a bomb."
    )
    max_labels: Count = Field(10_000, description="Most labels in one classify request.")
    max_archive_members: Count = Field(2_000_000, description="Most files in one uploaded archive.")
    max_archive_bytes: Bytes = Field(64 * GIBIBYTE, description="Most bytes that one archive may unpack to.")
    max_archive_ratio: Count = Field(
        200, description="Most times its own size that an archive may unpack to."
    )

    keep_revisions: Count = Field(1, description="Newest revisions of a model that the sweeper keeps.")
    sweep_grace_s: Annotated[float, Field(ge=0)] = Field(
        3600.0, description="The sweeper leaves blobs alone that are younger than this."
    )

    @model_validator(mode="after")
    def _beats_within_the_lease(self) -> "Settings":
        if self.beat_s * 2 > self.lease_s:
            raise ValueError(
                f"beat_s ({self.beat_s:g}) must be at most half of lease_s ({self.lease_s:g}), or one lost "
                "beat makes a living worker look dead: lower CONDU_BEAT_S or raise CONDU_LEASE_S"
            )
        return self

    @model_validator(mode="after")
    def _keys_are_for_object_storage(self) -> "Settings":
        given = (self.objects_access_key, self.objects_secret_key)
        if (given[0] is None) != (given[1] is None):
            raise ValueError(
                "the access key and the secret key of the object storage belong together: set both "
                "CONDU_OBJECTS_ACCESS_KEY and CONDU_OBJECTS_SECRET_KEY, or neither"
            )
        is_remote = (self.objects_url or "").startswith("s3://")
        if not is_remote and (given[0] is not None or self.objects_endpoint is not None):
            raise ValueError(
                "an endpoint or keys of an object storage are set, but no bucket: set "
                "CONDU_OBJECTS_URL=s3://bucket/prefix, or unset CONDU_OBJECTS_ENDPOINT and both keys"
            )
        return self

    @property
    def catalog_url(self) -> str:
        """The SQLAlchemy URL of the catalog."""
        return self.database_url or f"sqlite:///{self.data.absolute() / 'condu.sqlite'}"

    @property
    def blob_place(self) -> BlobPlace:
        """Where the store keeps its blobs."""
        return BlobPlace(
            url=self.objects_url or (self.data.absolute() / "blobs").as_uri(),
            endpoint=self.objects_endpoint,
            region=self.objects_region,
            access_key=_revealed(self.objects_access_key),
            secret_key=_revealed(self.objects_secret_key),
            cache_folder=self.data / "cache",
            cache_bytes=self.blob_cache_bytes,
        )

    @property
    def scratch_dir(self) -> Path:
        """Where jobs keep what may be lost: unpacked images, training checkpoints."""
        return self.data / "work"


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
