"""The list of mutants fits the code of today; `make mutants` runs it."""

import pytest
from by_hand import ROOT, mutants

MUTANTS = mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks)
def test_a_mutant_changes_one_place_and_names_its_tests(mutant):
    source = (ROOT / "src" / "tag2mask" / mutant.file).read_text(encoding="utf-8")
    compile(mutant.changed(source), mutant.file, "exec")
    assert mutant.new != mutant.old and mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8") if name else (ROOT / "tests" / file).exists()
