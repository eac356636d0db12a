"""mutants.toml and mutmut's settings match the code; `make mutants-all` runs the mutants."""

import pytest
from by_hand import ROOT, Mutant, mutants
from by_tool import MODULES, equivalents, prepared, squeezed

MUTANTS = mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks)
def test_a_mutant_changes_one_place_and_names_existing_tests(mutant):
    source = (ROOT / "src" / "tag2mask" / mutant.file).read_text(encoding="utf-8")
    compile(mutant.changed(source), mutant.file, "exec")
    assert mutant.new != mutant.old and mutant.tests
    assert all(map(exists, mutant.tests))


def exists(test):
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return f"def {name.partition('[')[0]}(" in text if name else bool(text)


def test_a_mutant_is_found_in_any_format_but_only_once():
    mutant = Mutant("", "", "f(a, b) and not c", "g()", ())
    for source in (
        "x = f(a, b) and not c\n",
        "x = (\n    f(\n        a,\n        b,\n    )\n    and not c\n)\n",
    ):
        assert mutant.changed(source).replace("\n", "").replace(" ", "") in ("x=g()", "x=(g())")
    for source in ("f(a, b) andnot c", "f(a, b, d) and not c", 2 * "f(a, b) and not c\n"):
        with pytest.raises(ValueError, match="not once"):
            mutant.changed(source)


@pytest.mark.parametrize("module", MODULES)
def test_mutmuts_modules_tests_and_equivalents_exist(module):
    assert all(map(exists, MODULES[module]))
    source = prepared((ROOT / "src" / "tag2mask" / module).read_text(encoding="utf-8"))
    compile(source, module, "exec")
    for entry in equivalents():
        assert entry["module"] in MODULES and entry["why"]
        assert entry["module"] != module or squeezed(entry["old"]) in squeezed(source), (
            f"no longer in {module}: {entry['old']}"
        )


def test_decorators_are_written_out_with_the_same_meaning():
    source = """
class A:
    @property
    def one(self):
        return 1

    @classmethod
    def two(cls):
        return sum(x for x, _ in zip([2], [3], strict=True))
"""
    result = prepared(source)
    assert "    one = property(one)\n" in result
    assert "@property" not in result and "strict" not in result
    exec(result, names := {})
    assert names["A"]().one == 1 and names["A"].two() == 2
