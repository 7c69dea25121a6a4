"""The house's plan holds: who imports whom, and what is written nowhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import ps_vae

PACKAGE = Path(ps_vae.__file__).parent
SETUP = Path(__file__).parent.parent / "setup.cfg"
PICKLES = {"cPickle", "cloudpickle", "copyreg", "dill", "joblib", "marshal", "pickle", "shelve"}


def test_imports_keep_to_the_contracts_in_setup_cfg() -> None:
    exit_code = lint_imports(config_filename=str(SETUP), no_cache=True)

    assert exit_code == 0, "a contract is broken; the report is above"


def test_only_the_commands_print() -> None:
    prints = [
        place
        for place, node in nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert [place for place in prints if not place.startswith("cli/")] == []


def test_nothing_is_asserted_outside_of_tests() -> None:
    assert [place for place, node in nodes() if isinstance(node, ast.Assert)] == []


def test_nothing_is_pickled() -> None:
    assert [place for place, module in imports() if module.split(".")[0] in PICKLES] == []


def test_no_array_is_loaded_with_pickle_allowed() -> None:
    allowed = [
        place
        for place, node in nodes()
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False"
    ]

    assert allowed == []


def test_only_the_sockets_edge_knows_zeromq() -> None:
    files = {place.split(":")[0] for place, module in imports() if module.split(".")[0] == "zmq"}

    names = ("census", "clients", "connection", "endpoint", "links", "server", "sockets", "standby", "watching")
    assert files <= {f"ps/{name}.py" for name in (*names, "security/door", "security/rehearsal")}


@pytest.mark.parametrize(
    ("source", "expected"),
    [("import pickle", ["pickle"]), ("from zmq.utils import z85", ["zmq.utils"]), ("def f():\n import zmq", ["zmq"])],
)
def test_the_search_for_imports_finds_them_wherever_they_stand(source: str, expected: list[str]) -> None:
    assert [module for node in ast.walk(ast.parse(source)) for module in imported(node)] == expected


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Every node of every file of the package, with its place as `file:line` below ps_vae."""
    files = sorted(PACKAGE.rglob("*.py"))
    assert PACKAGE / "errors.py" in files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            line = getattr(node, "lineno", 0)
            yield f"{file.relative_to(PACKAGE).as_posix()}:{line}", node


def imports() -> Iterator[tuple[str, str]]:
    return ((place, module) for place, node in nodes() for module in imported(node))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module or ""]
    return []
