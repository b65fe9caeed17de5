"""The rules, each a function from one source to the sentences that say where it is broken."""

import ast
import re
from collections.abc import Callable, Iterator

from tests.house.sources import ROOMS, Source

Rule = Callable[[Source], Iterator[str]]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL = 3
MIN_WORDS_OF_A_SENTENCE = 4

NAMES_THAT_SAY_NOTHING = {
    "utils",
    "util",
    "common",
    "helpers",
    "helper",
    "core",
    "manager",
    "managers",
    "misc",
}
MODULES_THAT_RUN_WHAT_THEY_READ = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
CALLS_THAT_RUN_WHAT_THEY_READ = {"torch.load", "torch.save", "torch.hub.load", "eval", "exec"}
CALLS_THAT_TOUCH_THE_DISK = {"open", "np.load", "np.save", "np.memmap", "np.fromfile", "torch.from_file"}
ROOMS_WITHOUT_MOCKS = ("tests/store/", "tests/catalog/", "tests/vlm/", "tests/api/")
# A synonym that has crept in, and the word of docs/glossary.md that stands for it.
SYNONYMS = {
    "taskvector": "delta",
    "task_vector": "delta",
    "artifact": "blob",
    "scaler": "rescaler",
    "finetune": "fine_tune",
    "shasum": "digest",
}
BARE_NAMES = {"id", "key", "data", "obj"}


def file_is_short(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > MAX_FILE_LINES:
        yield f"{source.path}: {lines} lines, at most {MAX_FILE_LINES}"


def functions_are_short(source: Source) -> Iterator[str]:
    for function in source.functions():
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > MAX_FUNCTION_LINES and not source.path.startswith("migrations/versions/"):
            yield f"{source.path}:{function.lineno} {function.name}: {lines} lines of {MAX_FUNCTION_LINES}"


def modules_are_named_for_what_they_hold(source: Source) -> Iterator[str]:
    for part in source.path.removesuffix(".py").split("/"):
        if part in NAMES_THAT_SAY_NOTHING:
            yield f"{source.path}: name the module for what it holds, not {part!r}"


def nothing_unpickles(source: Source) -> Iterator[str]:
    if source.path.startswith("tests/"):
        return
    for line, module in source.imported_modules():
        if module.split(".")[0] in MODULES_THAT_RUN_WHAT_THEY_READ:
            yield f"{source.path}:{line} imports {module}: store tensors as safetensors and values as JSON"
    for call in source.calls():
        name = ast.unparse(call.func)
        if name == "torch.save" and source.folder == "bench":
            continue  # measures what others write; nothing is read back
        if name in CALLS_THAT_RUN_WHAT_THEY_READ and not _reads_pinned_weights(source, call):
            yield f"{source.path}:{call.lineno} calls {name}: reading a file must never run it"
        elif any(word.arg == "allow_pickle" for word in call.keywords):
            yield f"{source.path}:{call.lineno} sets allow_pickle: reading a file must never run it"


def rooms_are_tested_without_mocks(source: Source) -> Iterator[str]:
    if not source.path.startswith(ROOMS_WITHOUT_MOCKS):
        return
    for line, module in source.imported_modules():
        if module.split(".")[0] in {"mock", "pytest_mock"} or module.startswith("unittest.mock"):
            yield f"{source.path}:{line} imports {module}: use the real thing or an honest fake"
    for function in source.functions():
        if any(argument.arg == "mocker" for argument in function.args.args):
            yield f"{source.path}:{function.lineno} asks for mocker: use the real thing"


def fusion_touches_no_disk(source: Source) -> Iterator[str]:
    if not source.path.startswith("store/fusion/"):
        return
    for call in source.calls():
        if ast.unparse(call.func) in CALLS_THAT_TOUCH_THE_DISK:
            yield f"{source.path}:{call.lineno} {ast.unparse(call.func)}: fusion maps tensors to tensors"


def store_annotations_are_real(source: Source) -> Iterator[str]:
    if source.folder == "store" and re.search(
        r"^from __future__ import annotations", source.text, re.MULTILINE
    ):
        yield f"{source.path}: annotations as strings are not checked by the tests' jaxtyping hook"


def arguments_beyond_the_third_are_named(source: Source) -> Iterator[str]:
    """Decorated functions and migrations/ are left out: a framework calls them."""
    if source.folder not in ROOMS or source.folder == "migrations":
        return
    for function in source.functions():
        decorators = {ast.unparse(node) for node in function.decorator_list} - {"staticmethod", "classmethod"}
        positional = [
            a.arg for a in (*function.args.posonlyargs, *function.args.args) if a.arg not in {"self", "cls"}
        ]
        if not decorators and len(positional) > MAX_POSITIONAL and not function.name.startswith("__"):
            yield f"{source.path}:{function.lineno} {function.name}: {len(positional)} positional arguments"


def names_are_those_of_the_glossary(source: Source) -> Iterator[str]:
    if source.folder not in ROOMS:
        return
    for line, name in _defined_names(source.tree):
        for synonym, word in SYNONYMS.items():
            if re.search(rf"(^|_){synonym}(s|_|$)", name.lower()):
                yield f"{source.path}:{line} {name}: docs/glossary.md says {word!r}, not {synonym!r}"


def signatures_say_whose_id_and_which_data(source: Source) -> Iterator[str]:
    if source.folder not in ROOMS:
        return
    for function in source.functions():
        arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        for bare in sorted(BARE_NAMES & {argument.arg for argument in arguments}):
            yield f"{source.path}:{function.lineno} {function.name}({bare}): say whose or which"


def names_of_tests_are_sentences(source: Source) -> Iterator[str]:
    for function in _tests(source):
        words = [word for word in function.name.removeprefix("test_").split("_") if word]
        if len(words) < MIN_WORDS_OF_A_SENTENCE:
            yield f"{source.path}:{function.lineno} {function.name}: say in a sentence what holds"


def tests_can_fail(source: Source) -> Iterator[str]:
    for function in _tests(source):
        if not any(_asserts(node) for node in ast.walk(function)):
            yield f"{source.path}:{function.lineno} {function.name} asserts nothing"


def tests_are_not_switched_off(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"pytest.mark.skip", "pytest.mark.xfail"}:
            yield f"{source.path}:{node.lineno} {ast.unparse(node)}: mend the test or delete it"


ALL_RULES: tuple[Rule, ...] = (
    file_is_short,
    functions_are_short,
    modules_are_named_for_what_they_hold,
    nothing_unpickles,
    rooms_are_tested_without_mocks,
    fusion_touches_no_disk,
    store_annotations_are_real,
    arguments_beyond_the_third_are_named,
    names_are_those_of_the_glossary,
    signatures_say_whose_id_and_which_data,
    names_of_tests_are_sentences,
    tests_can_fail,
    tests_are_not_switched_off,
)


def _reads_pinned_weights(source: Source, call: ast.Call) -> bool:
    """Whether a script of examples/ reads a published pickle, with torch's tensors-only unpickler."""
    restricted = any(
        word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords
    )
    return source.folder == "examples" and restricted


def _tests(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    if source.folder == "tests" and source.path.rsplit("/", 1)[-1].startswith("test_"):
        yield from (function for function in source.functions() if function.name.startswith("test_"))


def _asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return bool(re.search(r"assert|expect|check|verify|raises|contract", ast.unparse(node.func)))
    return isinstance(node, ast.Assert | ast.Raise)


def _defined_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
