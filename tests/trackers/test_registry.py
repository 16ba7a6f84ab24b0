import importlib.metadata
import sys
from dataclasses import fields
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from vistk.trackers import registry
from vistk.trackers.ablations import ABLATIONS
from vistk.trackers.base import Tracker
from vistk.trackers.minvis import MinVIS
from vistk.trackers.registry import BUILT_IN, GROUP, TrackerNameError, get_tracker, tracker_names
from vistk.trackers.visage import VISAGE


def install(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Pretend that packages with these entry points are installed (``_`` for ``-``)."""
    found = EntryPoints(
        EntryPoint(name.strip("_").replace("_", "-"), value, GROUP) for name, value in points.items()
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: found.select(group=group))


def test_names_are_kebab_case_and_all_can_be_had() -> None:
    names = tracker_names()
    assert set(names) >= {"identity", "mask-iou", "minvis", "oracle", "visage", *ABLATIONS}
    assert list(names) == sorted(names)
    for name in names:
        assert name == name.lower().replace("_", "-")
        cls, config = get_tracker(name)
        assert issubclass(cls, Tracker)
        assert isinstance(config, cls.Config)


def test_ablations_set_fields_of_a_built_in_tracker_to_something_else() -> None:
    for name, (base, values) in ABLATIONS.items():
        assert (
            name.startswith(f"{base}-") or name == "ctvis"
        )  # a method of its own, published on that of IDOL
        cls, config = get_tracker(name)
        default = BUILT_IN[base].Config()
        assert cls is BUILT_IN[base]
        assert values
        for field in fields(default):
            expected = values.get(field.name, getattr(default, field.name))
            assert getattr(config, field.name) == expected
            assert (field.name in values) == (expected != getattr(default, field.name))


def test_configs_are_fresh() -> None:
    _, config = get_tracker("visage")
    config.levels.append("res9")
    assert get_tracker("visage")[1].levels == ["res3", "res4", "res5"]


@pytest.mark.parametrize(
    ("name", "nearest"), [("visag", "visage"), ("min-vis", "minvis"), ("visage-no-memry", "visage-no-memory")]
)
def test_unknown_name(name: str, nearest: str) -> None:
    with pytest.raises(TrackerNameError, match=f"nearest is '{nearest}'"):
        get_tracker(name)


def test_class_by_module() -> None:
    cls, config = get_tracker("vistk.trackers.minvis:MinVIS")
    assert cls is MinVIS
    assert config == MinVIS.Config()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.at_all:Mine", "there is no module 'nowhere'"),
        ("vistk.trackers.nowhere:Mine", "there is no module 'vistk.trackers.nowhere'"),
        ("vistk.trackers.minvis:Mine", "'Mine' of 'vistk.trackers.minvis' is None"),
        ("vistk.trackers.minvis:MinVISConfig", "expected a subclass of Tracker"),
    ],
)
def test_class_by_module_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(TrackerNameError, match=message):
        get_tracker(name)


@pytest.mark.parametrize("config", ["", "Config = None", "Config = dict"])
def test_class_without_a_config(monkeypatch: pytest.MonkeyPatch, tmp_path: object, config: str) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plugin_without_config", raising=False)
    with open(f"{tmp_path}/plugin_without_config.py", "w") as file:
        file.write(f"from vistk.trackers.base import Tracker\nclass Mine(Tracker):\n    {config or 'pass'}\n")
    install(monkeypatch, mine="plugin_without_config:Mine")
    for name in ("mine", "plugin_without_config:Mine"):
        with pytest.raises(
            TrackerNameError, match=f"tracker '{name}': 'Mine' of .* has no dataclass 'Config'"
        ):
            get_tracker(name)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "'Mine' of 'unfinished_plugin' does not define start, step$"),
        (
            "    def start(self): ...\n    def step(self, state, frame): ...\n",
            r"the 'Config' of 'Mine' cannot be made without arguments \(.*'rate'\); expected a default",
        ),
    ],
)
def test_unfinished_class(monkeypatch: pytest.MonkeyPatch, tmp_path: object, body: str, message: str) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "unfinished_plugin", raising=False)
    with open(f"{tmp_path}/unfinished_plugin.py", "w") as file:
        file.write(
            "from dataclasses import dataclass\nfrom vistk.trackers.base import Tracker\n"
            "@dataclass\nclass MineConfig:\n    rate: float\n"
            f"class Mine(Tracker):\n    Config = MineConfig\n{body}"
        )
    install(monkeypatch, mine="unfinished_plugin:Mine")
    for name in ("mine", "unfinished_plugin:Mine"):
        with pytest.raises(TrackerNameError, match=f"tracker '{name}': .*{message}"):
            get_tracker(name)


@pytest.mark.parametrize("value", ["object()", "field(default_factory=lambda: [1, {'a': {2}}])"])
def test_config_that_no_file_could_hold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, value: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_plugin", raising=False)
    with open(f"{tmp_path}/odd_plugin.py", "w") as file:
        file.write(
            "from dataclasses import dataclass, field\nfrom typing import Any\n"
            "from vistk.trackers.identity import Identity\n"
            f"@dataclass\nclass MineConfig:\n    rate: float = 0.5\n    odd: Any = {value}\n"
            "class Mine(Identity):\n    Config = MineConfig\n"
        )
    with pytest.raises(
        TrackerNameError, match=r"odd in the 'Config' of 'Mine' is .*, expected numbers, texts"
    ):
        get_tracker("odd_plugin:Mine")


def test_plugins_are_listed_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lazy="a_package_that_is_not_here:Tracker", my_tracker="vistk.trackers.visage:VISAGE")
    assert {"lazy", "my-tracker"} <= set(tracker_names())
    assert "a_package_that_is_not_here" not in sys.modules
    assert get_tracker("my-tracker")[0] is VISAGE
    with pytest.raises(TrackerNameError, match="'lazy': there is no module 'a_package_that_is_not_here'"):
        get_tracker("lazy")


@pytest.mark.parametrize("name", ["visage", "visage_released"])
def test_plugin_with_a_name_of_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    install(monkeypatch, **{name: "other:Tracker"})
    for ask in (tracker_names, lambda: get_tracker("minvis")):
        with pytest.raises(TrackerNameError, match="which is a name of vistk itself"):
            ask()


def test_two_plugins_with_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, mine="one:Tracker", mine_="two:Tracker")
    with pytest.raises(
        TrackerNameError, match=r"'one:Tracker' and .*'two:Tracker' both name a tracker 'mine'"
    ):
        tracker_names()


def test_the_same_plugin_seen_twice_is_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, mine="one:Tracker", mine_="one:Tracker")
    assert "mine" in tracker_names()


def test_an_error_inside_a_plugin_is_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with open(f"{tmp_path}/plugin_that_needs_more.py", "w") as file:
        file.write("import something_not_installed\n")
    with pytest.raises(ModuleNotFoundError, match="something_not_installed"):
        get_tracker("plugin_that_needs_more:Tracker")


def test_installed_entry_points_are_read() -> None:
    assert importlib.metadata.entry_points is registry.entry_points


def test_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, their_s="their_pkg:Theirs")
    assert registry.origin("visage") == "vistk"
    assert registry.origin("visage-no-memory") == "ablation of visage"
    assert registry.origin("their-s") == "their_pkg:Theirs"  # an entry point without a distribution
