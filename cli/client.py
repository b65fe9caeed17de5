"""The service as Python: one method a route, typed answers, errors a person can act on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from cli.answers import (
    BaseAnswer,
    BundleImportAnswer,
    ClassifyAnswer,
    DatasetAnswer,
    JobAnswer,
    ModelAnswer,
    OverlapAnswer,
    RoutingAnswer,
    TaskAnswer,
)
from cli.downloads import Download, Downloaded
from cli.errors import ProblemError, ServerUnreachableError
from cli.transport import Call, Transport, problem_error
from cli.uploads import FileBody, FolderBody, Progress, upload

PREFIX = "/v1"
FETCH_TIMEOUT_S = 2 * 3600.0  # the answer comes when the service has fetched gigabytes from a hub


def silent(_done: int, _total: int) -> None:
    """A progress that nobody watches."""


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job: a line of its log, progress, or a change of state."""

    kind: str
    body: dict[str, Any]


class Client:
    """Talks to the condu service at one URL. A context manager."""

    def __init__(self, url: str) -> None:
        self.transport = Transport(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    # bases

    def list_bases(self) -> list[BaseAnswer]:
        return [BaseAnswer.read(row) for row in self._rows("bases")]

    def get_base(self, base: str) -> BaseAnswer:
        return BaseAnswer.read(self._get(path("bases", base)))

    def register_base(
        self,
        base: str,
        *,
        architecture: str | None,
        config: Any,
        pretrained: str | None = None,
        weights_url: str | None = None,
    ) -> BaseAnswer:
        """A base whose weights the service itself brings, from a hub or by their URL."""
        body = without_none(
            name=base, architecture=architecture, config=config, pretrained=pretrained, url=weights_url
        )
        call = Call("POST", path("bases"), json=body, read_timeout_s=FETCH_TIMEOUT_S)
        return BaseAnswer.read(self.transport.send(call).json())

    def upload_base(
        self, base: str, weights: Path, *, architecture: str | None, config: Any, on_sent: Progress = silent
    ) -> BaseAnswer:
        """A base from a safetensors file of this machine."""
        text = None if config is None else json.dumps(config, separators=(",", ":"))
        params = without_none(architecture=architecture, config=text)
        return BaseAnswer.read(
            self._put(path("bases", base), FileBody(weights), params=params, on_sent=on_sent)
        )

    def remove_base(self, base: str) -> dict[str, Any]:
        return self._delete(path("bases", base))

    # models

    def list_models(self) -> list[ModelAnswer]:
        return [ModelAnswer.read(row) for row in self._rows("models")]

    def get_model(self, model: str) -> ModelAnswer:
        return ModelAnswer.read(self._get(path("models", model)))

    def create_model(self, model: str, **properties: str | int | None) -> ModelAnswer:
        """A model on a base; `properties` are the fields of the route, None leaves one to the service."""
        return ModelAnswer.read(
            self._call("POST", path("models"), json_body=without_none(name=model, **properties))
        )

    def rollback_model(self, model: str, *, revision: int | None) -> dict[str, Any]:
        return self._call(
            "POST", path("models", model, "rollback"), json_body=without_none(revision=revision)
        )

    def list_revisions(self, model: str) -> list[dict[str, Any]]:
        return self._rows("models", model, "revisions")

    def remove_model(self, model: str) -> dict[str, Any]:
        return self._delete(path("models", model))

    def download_bundle(
        self,
        model: str,
        target: Path,
        *,
        without_base: bool,
        revision: int | None = None,
        on_received: Progress = silent,
    ) -> Downloaded:
        """The whole model as the file `target`; goes on where an earlier attempt broke off."""
        params = without_none(revision=revision, without_base="true" if without_base else None)
        call = Call("GET", path("models", model, "bundle"), params=params)
        return Download(self.transport, call, target, on_received=on_received).run()

    def download_adapter(self, model: str, target: Path, *, on_received: Progress = silent) -> Downloaded:
        """What a model's adapters start from as the file `target`; goes on where an attempt broke off."""
        call = Call("GET", path("models", model, "adapter"))
        return Download(self.transport, call, target, on_received=on_received).run()

    def import_bundle(
        self, bundle: Path, *, name: str | None, base: str | None, on_sent: Progress = silent
    ) -> BundleImportAnswer:
        """The model that a bundle of this machine becomes."""
        params = without_none(name=name, base=base)
        call = upload("POST", path("bundles"), FileBody(bundle), params=params, on_sent=on_sent)
        return BundleImportAnswer.read(self.transport.send(call).json())

    # datasets

    def upload_dataset(self, body: FileBody | FolderBody, *, on_sent: Progress = silent) -> DatasetAnswer:
        """The stored dataset. It is named by its content, so sending it twice does no harm and is retried."""
        return DatasetAnswer.read(self._put(path("datasets"), body, on_sent=on_sent, may_repeat=True))

    def fetch_dataset(self, url: str, *, sha256: str | None = None) -> DatasetAnswer:
        """The dataset that the service fetches from somewhere else."""
        body = without_none(url=url, sha256=sha256)
        call = Call("POST", path("datasets"), json=body, read_timeout_s=FETCH_TIMEOUT_S)
        return DatasetAnswer.read(self.transport.send(call).json())

    def list_datasets(self) -> list[dict[str, Any]]:
        return self._rows("datasets")

    def remove_dataset(self, digest: str) -> dict[str, Any]:
        return self._delete(path("datasets", digest))

    # tasks

    def submit_task(
        self,
        model: str,
        task: str,
        *,
        dataset: str,
        templates: Sequence[str] = (),
        training: Mapping[str, Any] | None = None,
    ) -> JobAnswer:
        """The queued job that trains a task on a stored dataset."""
        body: dict[str, Any] = {"name": task, "dataset": dataset, "training": dict(training or {})}
        if templates:
            body["templates"] = list(templates)
        return JobAnswer.read(self._call("POST", path("models", model, "tasks"), json_body=body)["job"])

    def import_task(
        self,
        model: str,
        task: str,
        checkpoint: Path,
        *,
        classes: Sequence[str],
        templates: Sequence[str] = (),
        dataset: str | None = None,
        on_sent: Progress = silent,
    ) -> JobAnswer:
        """The queued job that folds in a checkpoint of this machine."""
        params = without_none(
            **{"class": list(classes), "template": list(templates) or None, "dataset": dataset}
        )
        where = path("models", model, "tasks", task, "checkpoint")
        return JobAnswer.read(self._put(where, FileBody(checkpoint), params=params, on_sent=on_sent)["job"])

    def list_tasks(self, model: str) -> list[TaskAnswer]:
        return [TaskAnswer.read(row) for row in self._rows("models", model, "tasks")]

    def get_task(self, model: str, task: str) -> TaskAnswer:
        return TaskAnswer.read(self._get(path("models", model, "tasks", task)))

    def get_overlap(self, model: str, *, revision: int | None = None) -> OverlapAnswer:
        """Which parameters the tasks of a revision share."""
        params = without_none(revision=revision)
        return OverlapAnswer.read(self._get(path("models", model, "overlap"), params=params))

    def get_routing(self, model: str, *, revision: int | None = None) -> RoutingAnswer:
        """Who answers for the held-out images of a revision's tasks."""
        params = without_none(revision=revision)
        return RoutingAnswer.read(self._get(path("models", model, "routing"), params=params))

    def remove_task(self, model: str, task: str) -> dict[str, Any]:
        return self._delete(path("models", model, "tasks", task))

    def download_expert(
        self,
        model: str,
        task: str,
        target: Path,
        *,
        revision: int | None = None,
        form: str | None = None,
        on_received: Progress = silent,
    ) -> Downloaded:
        """The expert of a task as the file `target`; goes on where an earlier attempt broke off."""
        where = path("models", model, "tasks", task, "checkpoint")
        call = Call("GET", where, params=without_none(revision=revision, form=form))
        return Download(self.transport, call, target, on_received=on_received).run()

    # jobs

    def list_jobs(self, *, model: str | None = None, state: str | None = None) -> list[JobAnswer]:
        return [
            JobAnswer.read(row) for row in self._rows("jobs", params=without_none(model=model, state=state))
        ]

    def get_job(self, job_id: str) -> JobAnswer:
        return JobAnswer.read(self._get(path("jobs", job_id)))

    def cancel_job(self, job_id: str) -> JobAnswer:
        body = self._call("POST", path("jobs", job_id, "cancel"), may_repeat=True)
        return JobAnswer.read(body.get("job", body))

    def watch_job(self, job_id: str) -> Iterator[JobEvent]:
        """What happens to a job until it has ended, through any number of broken connections."""
        last_event_id = ""
        while True:
            try:
                with self.transport.events(
                    path("jobs", job_id, "events"), last_event_id=last_event_id
                ) as events:
                    for event in events:
                        last_event_id = event.id or last_event_id
                        if event.data:  # the first one only sets the time to wait before a retry
                            yield JobEvent(event.event, json.loads(event.data))
            except ServerUnreachableError:
                pass  # get_job tells whether the service is gone for good
            if self.get_job(job_id).ended:
                return

    # answers and the store

    def classify(
        self,
        model: str,
        images: Sequence[tuple[str, bytes]],
        *,
        labels: Sequence[str] = (),
        options: Mapping[str, Any],
    ) -> ClassifyAnswer:
        """The answers for named images, in their order; one that cannot be read has an error of its own."""
        fields: list[tuple[str, tuple[str | None, bytes | str]]] = [("images", image) for image in images]
        fields += [("labels", (None, label)) for label in labels]
        for option, given in without_none(**options).items():
            given_all = given if isinstance(given, list) else [given]
            fields += [(option, (None, as_field(value))) for value in given_all]
        call = Call("POST", path("models", model, "classify"), files=fields, may_repeat=True)
        return ClassifyAnswer.read(self.transport.send(call).json())

    def stats(self) -> dict[str, Any]:
        return self._get(path("stats"))

    def audit(
        self, *, limit: int, before: int | None = None, key_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Who changed what, the newest first."""
        entries: list[dict[str, Any]] = self._get(
            path("audit"), params=without_none(limit=limit, before=before, key=key_id)
        )["entries"]
        return entries

    def ready(self) -> dict[str, Any]:
        """Whether the service takes requests; it tells this to anybody."""
        return self._get(path("health", "ready"))

    def health(self) -> dict[str, Any]:
        """What the service says of itself, well or not."""
        try:
            return self._call("GET", path("health"))
        except ProblemError as error:
            if "parts" in error.body:  # a 503 that tells what is failing
                return error.body
            raise

    def verify(self, on_progress: Progress = silent) -> dict[str, Any]:
        """The report on every stored byte read back."""
        return self._report("verify", {}, on_progress)

    def sweep(
        self,
        *,
        delete: bool,
        keep_revisions: int | None,
        grace_s: float | None,
        on_progress: Progress = silent,
    ) -> dict[str, Any]:
        """The report on what nothing needs any more; removed when `delete`."""
        body = without_none(delete=delete, keep_revisions=keep_revisions, grace_s=grace_s)
        return self._report("sweep", body, on_progress)

    # the one way in and out

    def _report(self, what: str, body: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
        with self.transport.stream(Call("POST", path(what), json=dict(body))) as response:
            for line in filter(None, response.iter_lines()):
                message = json.loads(line)
                if "progress" in message:
                    on_progress(message["progress"]["done_bytes"], message["progress"]["total_bytes"])
                if "problem" in message:
                    raise problem_error(message["problem"])
                if "report" in message:
                    return json_object(message["report"])
        raise ServerUnreachableError(
            f"the {what} ended without a report", remedy="look at the log of the service"
        )

    def _rows(self, *parts: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        body = self._get(path(*parts), params=params)
        return list(body[parts[-1]])

    def _get(self, where: str, *, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._call("GET", where, params=params, may_repeat=True)

    def _delete(self, where: str) -> dict[str, Any]:
        response = self.transport.send(Call("DELETE", where))
        return json_object(response.json()) if response.content else {}

    def _put(
        self,
        where: str,
        body: FileBody | FolderBody,
        *,
        params: Mapping[str, Any] | None = None,
        on_sent: Progress,
        may_repeat: bool = False,
    ) -> dict[str, Any]:
        call = upload("PUT", where, body, params=params, on_sent=on_sent)
        return json_object(self.transport.send(replace(call, may_repeat=may_repeat)).json())

    def _call(
        self,
        method: str,
        where: str,
        *,
        params: Mapping[str, Any] | None = None,
        json_body: Any = None,
        may_repeat: bool = False,
    ) -> dict[str, Any]:
        call = Call(method, where, params=params, json=json_body, may_repeat=may_repeat)
        return json_object(self.transport.send(call).json())


def path(*parts: str) -> str:
    """The path of a resource; names are quoted, so that a slash in one cannot name another resource."""
    return "/".join([PREFIX, *(quote(part, safe="") for part in parts)])


def without_none(**fields: Any) -> dict[str, Any]:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def as_field(value: object) -> str:
    """A value as a form field."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def json_object(body: Any) -> dict[str, Any]:
    """The body, which every route makes an object."""
    return dict(body)
