"""Naming methods: every form a user may write, what identifies them on disk, and every way to get it wrong."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from command import python
from torch import Tensor

from collapsebench import methods
from collapsebench.errors import LossError, MethodError, UserError
from collapsebench.losses import Elements, Loss
from collapsebench.methods import load_loss, load_method, registered_methods

torch.set_num_threads(1)

METHODS = list(registered_methods())

SOURCE = """
from torch import Tensor

from collapsebench.losses import Elements, Loss


class MyLoss(Loss):
    beta: float = 0.5
    label: str = "a"

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * self.beta


class NotALoss:
    pass
"""


class Halved(Loss):
    share: float = 0.5

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * self.share


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_loss.py"
    path.write_text(SOURCE)
    return path


def slope(spec: object) -> float:
    """Loss of an element at log p = -1: tells the losses of this file apart."""
    return load_method(spec).make_loss().elementwise(Elements(torch.tensor(-1.0))).item()


# --- the forms -------------------------------------------------------------------------------------------------------


def test_registered_methods_hold_the_three_of_the_paper() -> None:
    assert {"ce", "focal", "tce"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_registered_name_loads_its_folder(name: str) -> None:
    method = load_method(name)
    assert (method.name, method.id, method.spec, method.loss) == (name, name, name, name)
    assert method.real_data is False
    assert method.track == "loss"
    assert re.fullmatch(r"[0-9a-f]{64}", method.source_sha256)


@pytest.mark.parametrize("name", METHODS)
def test_every_generation_gets_a_fresh_loss(name: str) -> None:
    method = load_method(name)
    first, second = method.make_loss(), method.make_loss()
    assert first is not second
    assert type(first) is not type(second)  # the file was executed anew
    assert first.parameters == second.parameters == method.parameters


def test_parameters_follow_the_name() -> None:
    method = load_method("tce:gamma=0.8,reduction=kept")
    assert method.name == "tce:gamma=0.8,reduction=kept"
    assert method.parameters == {"gamma": 0.8, "reduction": "kept", "ignore_index": -100}
    assert method.make_loss().parameters == method.parameters


def test_spaces_around_parameters_are_ignored() -> None:
    assert load_method(" tce:gamma = 0.8, reduction = kept ").id == load_method("tce:gamma=0.8,reduction=kept").id


def test_default_given_explicitly_is_the_same_method() -> None:
    assert load_method("tce:gamma=0.90").id == load_method("tce").id == "tce"


def test_order_of_parameters_does_not_matter() -> None:
    assert load_method("tce:reduction=kept,gamma=0.8").id == load_method("tce:gamma=0.8,reduction=kept").id


def test_file_and_class(file: Path) -> None:
    method = load_method(f"{file}:MyLoss")
    assert method.name == "MyLoss"
    assert slope(method) == 0.5
    assert slope(f"{file}:MyLoss:beta=0.25") == 0.25


def test_relative_file_is_loadable_from_another_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    method = load_method("my_loss.py:MyLoss:beta=0.8")
    monkeypatch.chdir("/")
    assert method.spec is not None
    again = load_method(method.spec)
    assert (again.id, again.parameters) == (method.id, method.parameters)


def test_home_is_expanded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert load_method("~/my_loss.py:MyLoss").name == "MyLoss"


def test_loss_is_named_without_the_folder_and_the_parameters(file: Path) -> None:
    method = load_method(f"{file}:MyLoss:beta=0.25")
    assert method.loss == "my_loss.py:MyLoss"
    assert load_method("tce:gamma=0.8").loss == "tce"


def test_description_is_the_docstring_of_the_class_itself(tmp_path: Path) -> None:
    assert load_method("tce").description.startswith("Cross entropy over elements with p ≤ gamma")
    silent = tmp_path / "silent.py"
    silent.write_text(SOURCE)
    assert load_method(f"{silent}:MyLoss").description == ""  # not the docstring of Loss


def test_odd_characters_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "a=1, b:c"
    folder.mkdir()
    (folder / "my_loss.py").write_text(SOURCE)
    assert slope(f"{folder / 'my_loss.py'}:MyLoss:beta=0.25") == 0.25


def test_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "collapse_pkg_of_a_user"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mod.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    method = load_method("collapse_pkg_of_a_user.mod:MyLoss:beta=2")
    assert method.name == "MyLoss:beta=2"
    assert slope(method) == 2
    assert method.id.startswith("MyLoss-")


def test_loss_object_keeps_its_parameters() -> None:
    method = load_method(Halved(share=0.125))
    assert method.name == "Halved:share=0.125"
    assert slope(method) == 0.125
    assert method.spec is None


def test_loss_class() -> None:
    assert load_method(Halved).name == "Halved"
    assert slope(Halved) == 0.5
    assert load_method(Halved).id == load_method(Halved()).id


def test_method_is_returned_as_it_is() -> None:
    method = load_method("tce")
    assert load_method(method) is method


def test_control_is_ce_on_real_data() -> None:
    method = load_method("control")
    assert (method.name, method.id, method.real_data) == ("control", "control", True)
    assert method.source_sha256 == load_method("ce").source_sha256


def test_class_called_control_does_not_get_real_data(tmp_path: Path) -> None:
    path = tmp_path / "sly.py"
    path.write_text(SOURCE.replace("MyLoss", "control"))
    assert load_method(f"{path}:control").real_data is False
    assert load_method(type("control", (Halved,), {})).real_data is False


def test_load_loss_returns_the_object() -> None:
    assert load_loss("tce:gamma=0.8").parameters["gamma"] == 0.8


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch):
    """Pretend that installed packages offer these entry points."""

    def set_to(*values: tuple[str, str]) -> None:
        points = [EntryPoint(name=n, value=v, group=methods.ENTRY_POINT_GROUP) for n, v in values]

        def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
            return [p for p in points if p.group == group and name in (None, p.name)]

        monkeypatch.setattr(methods, "entry_points", entry_points)

    return set_to


def test_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offer) -> None:
    (tmp_path / "collapse_plugin.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    offer(("plugged", "collapse_plugin:MyLoss"))
    method = load_method("plugged:beta=0.75")
    assert method.name == "plugged:beta=0.75"
    assert slope(method) == 0.75
    assert method.id.startswith("plugged-")


def test_entry_point_offered_twice_is_refused(offer) -> None:
    offer(("plugged", "a:MyLoss"), ("plugged", "b:MyLoss"))
    with pytest.raises(MethodError, match=r"plugged.*several installed packages.*a:MyLoss.*b:MyLoss"):
        load_method("plugged")


def test_unknown_name_lists_entry_points_too(offer) -> None:
    offer(("plugged", "a:MyLoss"))
    with pytest.raises(MethodError, match=r"'plugd'.*ce.*control.*plugged"):
        load_method("plugd")


# --- discovery -------------------------------------------------------------------------------------------------------


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled baselines that a test may change."""
    shutil.copytree(methods.bundled("baselines"), tmp_path / "baselines")
    monkeypatch.setattr(methods, "bundled", lambda folder: tmp_path / folder)
    return tmp_path / "baselines"


def test_new_folder_is_a_new_method_without_any_edit(baselines: Path) -> None:
    (baselines / "mine").mkdir()
    (baselines / "mine" / "loss.py").write_text(SOURCE)
    (baselines / "notes").mkdir()
    assert list(registered_methods()) == sorted([*METHODS, "mine"])
    assert load_method("mine:beta=0.25").id == "mine-beta=0.25"
    assert slope("mine") == 0.5


def test_baseline_may_import_the_class_it_derives_from(baselines: Path) -> None:
    (baselines / "mine").mkdir()
    derived = SOURCE.replace("MyLoss(Loss)", "MyLoss(Tempered)")
    derived = derived.replace("import Elements, Loss", "import Elements, Loss\nfrom .tempered import Tempered")
    (baselines / "mine" / "loss.py").write_text(derived)
    (baselines / "mine" / "tempered.py").write_text(SOURCE.replace("MyLoss", "Tempered"))
    assert slope("mine") == 0.5


@pytest.mark.parametrize("source", ["", SOURCE + SOURCE.replace("MyLoss", "Second")], ids=["none", "two"])
def test_baseline_must_define_one_loss(baselines: Path, source: str) -> None:
    (baselines / "mine").mkdir()
    (baselines / "mine" / "loss.py").write_text(source)
    with pytest.raises(MethodError, match=r"mine.*must define one Loss class"):
        load_method("mine")


# --- identity on disk ------------------------------------------------------------------------------------------------


def test_ids_are_safe_directory_names(file: Path) -> None:
    specs = [
        *METHODS,
        "control",
        "tce:gamma=0.8,reduction=kept",
        f"{file}:MyLoss",
        f"{file}:MyLoss:beta=-1e-30",
        f"{file}:MyLoss:label=../../etc/passwd",
        f"{file}:MyLoss:label=a b*?$(x)",
        f"{file}:MyLoss:label={'long' * 10}",
    ]
    for spec in specs:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.=,+-]{0,127}", load_method(spec).id), spec


def test_distinct_parameters_give_distinct_ids_and_names(file: Path) -> None:
    specs = [
        "tce",
        "tce:gamma=0.8",
        "tce:gamma=0.8000001",
        "tce:gamma=0.80000001",
        "tce:gamma=0.9000000001",
        "tce:reduction=kept",
        "tce:ignore_index=0",
        "focal",
        "ce",
        "control",
        *(f"{file}:MyLoss:label={label}" for label in ("a/b", "a_b", "a b", "long" * 9, "long" * 9 + "er")),
    ]
    loaded = [load_method(spec) for spec in specs]
    assert len({m.id for m in loaded}) == len({m.name for m in loaded}) == len(specs)


@pytest.mark.parametrize("gamma", [0.1 + 0.2, 1 / 3, 0.8, 1e-7, 0.8999999])
def test_name_holds_the_exact_parameter(gamma: float) -> None:
    method = load_method(type(load_loss("tce"))(gamma=gamma))
    assert float(method.name.partition("gamma=")[2]) == gamma


def test_edited_file_gets_a_new_id_and_the_new_code(file: Path) -> None:
    before = load_method(f"{file}:MyLoss")
    file.write_text(SOURCE.replace("* self.beta", "* self.beta * 2"))
    after = load_method(f"{file}:MyLoss")
    assert before.id != after.id
    assert before.source_sha256 != after.source_sha256
    assert (slope(before), slope(after)) == (0.5, 1.0)


def test_same_class_name_in_two_files_gets_two_ids(file: Path) -> None:
    other = file.with_name("other.py")
    other.write_text(SOURCE.replace("0.5", "0.6"))
    assert load_method(f"{file}:MyLoss").id != load_method(f"{other}:MyLoss").id


def test_same_class_name_with_other_code_gets_another_id() -> None:
    def make() -> type[Loss]:
        class Halved(Loss):
            def elementwise(self, e: Elements) -> Tensor:
                return -e.log_p / 2

        return Halved

    assert load_method(make()).id != load_method(Halved).id


# --- what lies beside the file ---------------------------------------------------------------------------------------

USES_SIBLING = """
{imports}
from collapsebench.losses import Loss

class MyLoss(Loss):
    def elementwise(self, e):
        return -e.log_p * factor
"""


@pytest.mark.parametrize("imports", ["from beside_the_loss import factor", "from .beside_the_loss import factor"])
def test_loss_may_import_what_lies_beside_it(tmp_path: Path, imports: str) -> None:
    (tmp_path / "beside_the_loss.py").write_text("factor = 3.0")
    (tmp_path / "loss.py").write_text(USES_SIBLING.format(imports=imports))
    try:
        assert slope(f"{tmp_path / 'loss.py'}:MyLoss") == 3.0
    finally:
        sys.modules.pop("beside_the_loss", None)
    assert str(tmp_path) not in sys.path


def test_same_loss_in_two_folders_sees_its_own_neighbours(tmp_path: Path) -> None:
    for folder, factor in (("a", 2.0), ("b", 5.0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "neighbour.py").write_text(f"factor = {factor}")
        (tmp_path / folder / "loss.py").write_text(USES_SIBLING.format(imports="from .neighbour import factor"))
    assert slope(f"{tmp_path}/a/loss.py:MyLoss") == 2.0
    assert slope(f"{tmp_path}/b/loss.py:MyLoss") == 5.0


def test_an_edit_of_what_a_loss_imports_from_beside_it_makes_another_method(tmp_path: Path) -> None:
    loss, neighbour, deeper = (tmp_path / name for name in ("loss.py", "neighbour.py", "deeper.py"))
    loss.write_text(USES_SIBLING.format(imports="from .neighbour import factor"))
    neighbour.write_text("from .deeper import factor")
    deeper.write_text("factor = 2.0")
    before = load_method(f"{loss}:MyLoss")
    deeper.write_text("factor = 5.0")
    after = load_method(f"{loss}:MyLoss")
    assert (slope(before), slope(after)) == (5.0, 5.0)  # each generation reads it anew
    assert before.id != after.id
    assert before.source_sha256 == after.source_sha256  # a submission names one file
    (tmp_path / "unrelated.py").write_text("factor = 1.0")
    assert load_method(f"{loss}:MyLoss").id == after.id


@pytest.mark.parametrize("edited", ["mod.py", "beside.py"])
def test_package_that_changed_since_it_was_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    package = tmp_path / f"collapse_pkg_{edited[:3]}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "beside.py").write_text("factor = 2.0")
    (package / "mod.py").write_text(USES_SIBLING.format(imports=f"from {package.name}.beside import factor"))
    monkeypatch.syspath_prepend(tmp_path)
    load_method(f"{package.name}.mod:MyLoss")
    with (package / edited).open("a") as file:
        file.write("\nfactor = 3.0\n")
    with pytest.raises(MethodError, match=r"mod.py, or what it imports.*has changed since.*restart it.*mod.py:MyLoss"):
        load_method(f"{package.name}.mod:MyLoss")
    importlib.reload(sys.modules[f"{package.name}.beside"])
    importlib.reload(sys.modules[f"{package.name}.mod"])
    assert slope(f"{package.name}.mod:MyLoss") == 3.0


# --- every generation anew --------------------------------------------------------------------------------------------

KEEPS = """
from __future__ import annotations

from typing import ClassVar

import notes_beside
from collapsebench.losses import Elements, Loss

seen: list[int] = []


class MyLoss(Loss):
    met: ClassVar[list[int]] = []

    def elementwise(self, e: Elements):
        kept = len(seen) + len(self.met) + len(notes_beside.seen)
        for notes in (seen, self.met, notes_beside.seen):
            notes.append(e.generation)
        return -e.log_p * (1 + kept)
"""


def test_what_a_file_keeps_on_class_module_or_neighbour_is_gone_in_the_next_generation(tmp_path: Path) -> None:
    (tmp_path / "notes_beside.py").write_text("seen = []")
    (tmp_path / "loss.py").write_text(KEEPS)
    try:
        assert slope(f"{tmp_path / 'loss.py'}:MyLoss") == 1.0  # loading it had already asked an earlier class once
        method = load_method(f"{tmp_path / 'loss.py'}:MyLoss")
        elements = Elements(torch.tensor(-1.0))
        for _ in range(3):
            loss = method.make_loss()
            assert [loss.elementwise(elements).item() for _ in range(2)] == [1.0, 4.0]
            assert loss.parameters == method.parameters
    finally:
        sys.modules.pop("notes_beside", None)


def test_a_run_keeps_the_source_that_it_was_given(file: Path) -> None:
    method = load_method(f"{file}:MyLoss")
    file.write_text("raise RuntimeError('changed while it ran')")
    assert method.make_loss().elementwise(Elements(torch.tensor(-1.0))).item() == 0.5


# --- what a parameter may be -----------------------------------------------------------------------------------------

TABLES = {
    "list": ("table: list[float] = [0.1, 0.2]", "table=\\[0.1, 0.2\\].*no lists or tables"),
    "infinity": ('cap: float = float("inf")', "cap=inf.*each a finite number"),
    "text of numbers": (f"table: str = '{'0.1 ' * 20}'", "table='0.1 0.1.*at most 40 characters"),
    "digits": ("table: int = 10**40", "table=an integer of 133 bits"),
    "many": ("; ".join(f"b{i}: float = 0.{i}" for i in range(9)), "9 parameters .b0, b1, b2"),
}


@pytest.mark.parametrize("case", TABLES)
def test_parameters_that_could_hold_a_table_are_refused(case: str, file: Path) -> None:
    written, message = TABLES[case]
    file.write_text(SOURCE.replace('beta: float = 0.5\n    label: str = "a"', written).replace("self.beta", "2"))
    with pytest.raises(UserError, match=message):
        load_method(f"{file}:MyLoss")


def test_eight_numbers_and_words_are_no_table(file: Path) -> None:
    written = "; ".join(f"b{i}: float | None = None" for i in range(7)) + f"; word: str = '{'w' * 40}'"
    file.write_text(SOURCE.replace('beta: float = 0.5\n    label: str = "a"', written).replace("self.beta", "2"))
    assert slope(f"{file}:MyLoss:b1=0.5") == 2.0


# --- errors ----------------------------------------------------------------------------------------------------------

BAD_FILES = {
    "syntax.py": "def broken(:\n    pass\n",
    "raises.py": "raise RuntimeError('first line\\nsecond line')\n",
    "exits.py": "raise SystemExit(3)\n",
    "imports.py": "import no_such_module_anywhere\n",
    "notes.txt": "not python",
}

ERRORS = {
    "file missing": ("{dir}/absent.py:MyLoss", "absent.py: no such file"),
    "directory": ("{dir}/:MyLoss", "no such file"),
    "not a python file": ("{dir}/notes.txt:MyLoss", "notes.txt is not a .py file"),
    "syntax error": ("{dir}/syntax.py:MyLoss", "syntax.py does not import: SyntaxError: .*line 1"),
    "file raises": ("{dir}/raises.py:MyLoss", "raises.py does not import: RuntimeError: first line second line"),
    "file exits": ("{dir}/exits.py:MyLoss", "exits.py does not import: SystemExit: 3"),
    "file imports nothing": ("{dir}/imports.py:MyLoss", "imports.py does not import.*no_such_module_anywhere"),
    "class missing": ("{dir}/my_loss.py:MyLos", "my_loss.py has no 'MyLos'; Loss classes in it: MyLoss"),
    "class not named": ("{dir}/my_loss.py", "my_loss.py.*names a file but no class; write .*:ClassName"),
    "class is not a loss": ("{dir}/my_loss.py:NotALoss", "NotALoss is not a Loss.*Loss classes in it: MyLoss"),
    "base class": ("{dir}/my_loss.py:Loss", "Loss is not a Loss"),
    "misspelt parameter": ("{dir}/my_loss.py:MyLoss:bta=1", "unknown parameter 'bta'; MyLoss has beta, label"),
    "misspelt parameter of a registered method": ("tce:gama=1", "unknown parameter 'gama'.*gamma"),
    "parameter twice": ("tce:gamma=0.8,gamma=0.9", "tce:gamma=0.8,gamma=0.9.*'gamma' is given twice"),
    "parameter of wrong type": ("tce:gamma=high", "gamma='high'.*number"),
    "parameter out of range": ("tce:gamma=1.5", "gamma=1.5.*0 < gamma ≤ 1"),
    "parameter without value": ("tce:gamma=", "'gamma=' is not a parameter; write key=value"),
    "parameter without key": ("tce:gamma=0.8,kept", "'kept' is not a parameter; write key=value"),
    "reduction that cannot train": ("tce:reduction=sum", "'sum' cannot train.*'mean' and 'kept'"),
    "control with parameters": ("control:reduction=kept", "control takes no parameters"),
    "unknown name": (
        "tcee",
        "unknown method 'tcee'.*ce, ce-compensated, focal, tce.*control.*collapsebench list methods",
    ),
    "empty name": ("", "unknown method ''"),
    "package missing": ("no_such_package.losses:MyLoss", "no_such_package.losses does not import.*ModuleNotFoundError"),
    "package that raises": ("collapse_raises:MyLoss", "collapse_raises does not import: RuntimeError: one two"),
    "package that exits": ("collapse_exits:MyLoss", "collapse_exits does not import: SystemExit"),
    "class missing in package": ("collapsebench.errors:MyLoss", "collapsebench.errors has no 'MyLoss'.*none"),
    "package class is not a loss": ("collapsebench.errors:UserError", "UserError is not a Loss"),
    "parameters without '='": ("tce:0.8", "tce"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_name_is_a_user_error_in_one_line_that_names_it(
    case: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in BAD_FILES.items():
        (file.parent / name).write_text(text)
    (file.parent / "collapse_raises.py").write_text("raise RuntimeError('one\\ntwo')")
    (file.parent / "collapse_exits.py").write_text("import sys; sys.exit()")
    monkeypatch.syspath_prepend(file.parent)
    importlib.invalidate_caches()
    spec, message = ERRORS[case]
    with pytest.raises(UserError, match=message) as caught:
        load_method(spec.format(dir=file.parent))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [None, 3, Path("x.py"), object])
def test_what_is_not_a_method_is_named_by_its_type(given: object) -> None:
    with pytest.raises(MethodError, match=f"got {type(given).__name__}"):
        load_method(given)


def test_file_that_failed_can_be_mended(file: Path) -> None:
    file.write_text("raise RuntimeError('not yet')")
    with pytest.raises(MethodError):
        load_method(f"{file}:MyLoss")
    file.write_text(SOURCE)
    assert slope(f"{file}:MyLoss") == 0.5


def test_loss_is_checked_when_it_is_loaded(file: Path) -> None:
    file.write_text(SOURCE.replace("-e.log_p * self.beta", "-e.log_p.mean()"))
    with pytest.raises(LossError, match="one loss per element"):
        load_method(f"{file}:MyLoss")


# --- what a first loss often gets wrong ------------------------------------------------------------------------------

PITFALLS = {
    "parameter without annotation": (
        "gamma = 0.5\n    def elementwise(self, e):\n        return -e.log_p * self.gamma",
        r"Mine: gamma = 0.5 has no annotation, so it is not a parameter; write `gamma: float = 0.5`, or `gamma: ",
    ),
    "its own __init__": (
        "def __init__(self, gamma=0.5):\n        self.gamma = gamma\n"
        "    def elementwise(self, e):\n        return -e.log_p * self.gamma",
        r"Mine defines __init__\(self, gamma\), but parameters are annotated class attributes.*`gamma: float = 0.5`",
    ),
    "an error below its own line": (
        "def elementwise(self, e):\n        return torch.stack([e.log_p, torch.zeros(3)])",
        r"Mine.elementwise failed on a batch of 64.*RuntimeError: .*\(.*pitfall.py:6\)",
    ),
}


@pytest.mark.parametrize("case", PITFALLS)
def test_pitfall_is_told_with_its_mend(case: str, tmp_path: Path) -> None:
    body, message = PITFALLS[case]
    file = tmp_path / "pitfall.py"
    file.write_text(f"import torch\nfrom collapsebench import Loss\n\nclass Mine(Loss):\n    {body}\n")
    with pytest.raises(UserError, match=message) as caught:
        load_method(f"{file}:Mine")
    assert "\n" not in str(caught.value)


def test_init_that_passes_parameters_on_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "passes.py"
    file.write_text(
        SOURCE.replace(
            "    def element", "    def __init__(self, **p):\n        super().__init__(**p)\n\n    def element"
        )
    )
    assert slope(f"{file}:MyLoss:beta=0.25") == 0.25


def test_loss_that_asks_for_logits_is_told_which_task_has_none(tmp_path: Path) -> None:
    file = tmp_path / "smooth.py"
    file.write_text(
        "from typing import ClassVar\nfrom collapsebench import Loss\n\nclass Smooth(Loss):\n"
        "    needs_logits: ClassVar = True\n    def elementwise(self, e):\n"
        "        return -0.9 * e.log_p - 0.1 * e.logits.log_softmax(-1).mean(-1)\n"
    )
    assert load_method(f"{file}:Smooth", "text", "some-text@1").name == "Smooth"
    with pytest.raises(LossError, match=r"some-vae@1 \(kind vae\) has no logits: a loss can see log_p, "):
        load_method(f"{file}:Smooth", "vae", "some-vae@1")


@pytest.mark.parametrize(
    ("spec", "meant"), [("tec", "tce"), ("contrl", "control"), ("tce:gama=1", "gamma"), ("Focal", "focal")]
)
def test_misspelt_name_is_answered_with_what_may_be_meant(spec: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"\(did you mean {meant}\?\)"):
        load_method(spec)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("compare('markov-mirco')", "unknown task 'markov-mirco' (did you mean markov-micro?)"),
        ("compare('text-bytes-micro', ['ce', 'tec'])", "unknown method 'tec' (did you mean tce?)"),
        ("compare('text-bytes-micro', ['ce', 'absent.py:A'])", "absent.py: no such file"),
    ],
)
def test_misspelt_name_is_answered_before_torch_is_imported(call: str, told: str, tmp_path: Path) -> None:
    program = f"""
import sys
from collapsebench import compare
try:
    {call}
except ValueError as error:
    print(error, "torch" in sys.modules)
"""
    out = python("-c", program, cwd=tmp_path).stdout
    assert told in out
    assert out.endswith("False\n")
