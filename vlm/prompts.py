"""Labels and templates: what a caller may give, and the prompts they make."""

from collections.abc import Sequence

from vlm.errors import InvalidLabelsError, InvalidTemplatesError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
MAX_LABELS = 10_000
"""A CPU encodes some hundred prompts a second; more labels than this would hold a request for minutes."""
MAX_LABEL_LENGTH = 1_000
"""Characters. A text tower reads 77 tokens; what is longer was meant for another field."""
MAX_TEMPLATES = 256

_SLOT = "{}"


def fill(template: str, label: str) -> str:
    """The prompt: `template` with its one {} replaced by `label`, whatever braces the label has."""
    return template.replace(_SLOT, label, 1)


def validate_labels(labels: Sequence[str], *, max_labels: int = MAX_LABELS) -> tuple[str, ...]:
    """The labels in their order, without repetitions.

    Raises:
        InvalidLabelsError: None, more than `max_labels`, or an entry that is empty, too long or no text.
    """
    if isinstance(labels, str):
        raise InvalidLabelsError("labels is one text; give a list of labels")
    if not labels:
        raise InvalidLabelsError("labels is empty; give at least one label, or leave labels out")
    if len(labels) > max_labels:
        raise InvalidLabelsError(f"{len(labels)} labels; at most {max_labels} are answered in one request")
    for position, label in enumerate(labels):
        _check_label(label, position)
    return tuple(dict.fromkeys(labels))


def _check_label(label: object, position: int) -> None:
    if not isinstance(label, str):
        raise InvalidLabelsError(f"label {position} is a {type(label).__name__}; labels are texts")
    if not label.strip():
        raise InvalidLabelsError(f"label {position} is blank; name the class")
    if len(label) > MAX_LABEL_LENGTH:
        raise InvalidLabelsError(
            f"label {position} has {len(label)} characters; a label has at most {MAX_LABEL_LENGTH}"
        )


def validate_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """The templates in their order, without repetitions.

    Raises:
        InvalidTemplatesError: None, too many, or one that does not hold {} exactly once.
    """
    if isinstance(templates, str):
        raise InvalidTemplatesError("templates is one text; give a list of templates")
    if not templates:
        raise InvalidTemplatesError("templates is empty; give at least one, such as 'a photo of a {}.'")
    if len(templates) > MAX_TEMPLATES:
        raise InvalidTemplatesError(f"{len(templates)} templates; at most {MAX_TEMPLATES} are averaged")
    for template in templates:
        _check_template(template)
    return tuple(dict.fromkeys(templates))


def _check_template(template: object) -> None:
    if not isinstance(template, str):
        raise InvalidTemplatesError(f"a template is a {type(template).__name__}; templates are texts")
    if template.count(_SLOT) != 1:
        raise InvalidTemplatesError(
            f"template {template[:100]!r} holds {{}} {template.count(_SLOT)} times; "
            "it must hold it exactly once, where the label goes, as in 'a photo of a {}.'"
        )
    if len(template) > MAX_LABEL_LENGTH:
        raise InvalidTemplatesError(f"a template has {len(template)} characters; at most {MAX_LABEL_LENGTH}")
