"""What a problem's `type` means, at the address that the `type` itself is."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.documentation import problems
from api.errors import PROBLEMS
from api.refusals import NoSuchRouteError
from api.schemas.installation import ProblemKindAnswer

router = APIRouter(prefix="/problems", tags=["problems"])


@router.get("/{slug}", summary="Explain a kind of problem", responses=problems(NoSuchRouteError))
def get_problem(
    slug: Annotated[str, Path(description="The last part of a problem's `type`.", examples=["not-found"])],
) -> ProblemKindAnswer:
    """The kind of problem: its status, what it means, and what helps."""
    for kind in PROBLEMS.values():
        if kind.slug == slug:
            return ProblemKindAnswer(
                type=kind.type_uri,
                title=kind.title,
                status=kind.status,
                remedy=kind.remedy,
                members=list(kind.members),
            )
    raise NoSuchRouteError(f"there is no kind of problem {slug[:80]!r}", {})
