"""The list of mutants, and what mutmut is told, fit the code of today; `make mutants-all` runs both."""

import pytest
from by_hand import ROOT, mutants
from by_tool import MODULES, equivalents, prepared

MUTANTS = mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks)
def test_a_mutant_changes_one_place_and_names_its_tests(mutant):
    source = (ROOT / "src" / "tag2mask" / mutant.file).read_text(encoding="utf-8")
    compile(mutant.changed(source), mutant.file, "exec")
    assert mutant.new != mutant.old and mutant.tests
    assert all(map(stands, mutant.tests))


def stands(test):
    file, _, name = test.partition("::")
    text = (
        (ROOT / "tests" / file).read_text(encoding="utf-8")
        if (ROOT / "tests" / file).is_file()
        else ""
    )
    return f"def {name.partition('[')[0]}(" in text if name else bool(text)


@pytest.mark.parametrize("module", MODULES)
def test_mutmut_gets_a_module_with_its_tests_and_equivalents_that_are_there(module):
    assert all(map(stands, MODULES[module]))
    source = prepared((ROOT / "src" / "tag2mask" / module).read_text(encoding="utf-8"))
    compile(source, module, "exec")
    lines = {line.strip() for line in source.splitlines()}
    for listed in equivalents():
        assert listed["module"] in MODULES and listed["why"]
        assert listed["module"] != module or listed["old"] in lines, (
            f"not in {module} any more: {listed['old']}"
        )


def test_decorators_are_written_out_and_mean_the_same():
    source = """
class A:
    @property
    def one(self):
        return 1

    @classmethod
    def two(cls):
        return sum(x for x, _ in zip([2], [3], strict=True))
"""
    assert (
        "    one = property(one)\n" in prepared(source)
        and "@property" not in prepared(source)
        and "strict" not in prepared(source)
    )
    exec(prepared(source), names := {})
    assert names["A"]().one == 1 and names["A"].two() == 2
