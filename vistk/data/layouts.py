"""Where the splits of published data sets lie on disk.

Layouts that :func:`find_split` knows, ``SPLIT`` spelled as asked for first (``valid`` is also found as
``val``, and the other way round). Annotations, the first one that exists:

1. ``SPLIT.json``: YouTube-VIS 2019, and the ``ytvis_2019``, ``ytvis_2021``, .. folders of VIS repositories
2. ``SPLIT/instances.json``: YouTube-VIS 2021 and 2022
3. ``annotations_SPLIT.json``: OVIS
4. ``annotations/SPLIT.json`` and ``annotations/annotations_SPLIT.json``: the ``ovis`` folder of repositories
5. ``annotations/youtube_vis_2019_SPLIT.json``: MMTracking, by the name of the data set

Images, the first one that exists and holds more than annotations: ``SPLIT/JPEGImages`` (YouTube-VIS),
``SPLIT`` (OVIS), ``JPEGImages``. All of this in the data folder itself, then, for a data set whose name
is known, in its sub-folders of that name (``ytvis_2019``, ``youtube_vis_2019``, ``OVIS``, ..).

``train_all_frames`` and the like are the same videos at full frame rate, so they are taken only when
they are asked for by that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDERS: Mapping[str, tuple[str, ...]] = {
    "ytvis2019": ("ytvis2019", "ytvis19", "youtubevis2019", "youtubevis19"),
    "ytvis2021": ("ytvis2021", "ytvis21", "youtubevis2021", "youtubevis21"),
    "ytvis2022": ("ytvis2022", "ytvis22", "youtubevis2022", "youtubevis22"),
    "ovis": ("ovis",),
}
"""Names of a data set's folder inside a folder of data sets; case, ``_`` and ``-`` do not matter."""

_MMTRACKING = {f"ytvis{year}": f"youtube_vis_{year}" for year in (2019, 2021, 2022)} | {"ovis": "ovis"}
_SPELLINGS = {"valid": "val", "val": "valid"}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_NO_IMAGES = ("Annotations", "JPEGImages")  # folders that lie beside images or hold them, but are none


def find_split(root: str | Path, split: str, name: str = "") -> tuple[Path, Path]:
    """The json file and the image folder of a split, in any of the published layouts (see the module).

    Args:
        root: folder of the data set, or a folder of data sets that has it in a sub-folder.
        split: ``train``, ``valid``, ``test``, or any other name.
        name: data set (``ytvis2019``, ``ytvis2021``, ``ytvis2022``, ``ovis``); another or none: sub-folders
            are not looked at.

    Raises:
        FileNotFoundError: the folder is missing, or none of the layouts fits; says what was looked for,
            and what is there instead (archives that were not unpacked, videos at full frame rate).
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"data folder {root} does not exist")
    places = [_Place(base, split, name) for base in (root, *_sub_folders(root, FOLDERS.get(name, ())))]
    place = next((place for place in places if place.json_path), None)
    if place is None or place.json_path is None:
        looked = f"{' and '.join(str(p.base) for p in places)} for {', '.join(places[0].jsons)}"
        hint = next(filter(None, (p.hint() for p in places)), "") or _other_data_sets(root, places, name)
        raise FileNotFoundError(f"no annotations of split {split!r}: looked in {looked}{hint}")
    if place.images is None:
        looked = f"{place.base} for {', '.join(place.folders)}"
        raise FileNotFoundError(
            f"no images of split {split!r} beside {place.json_path}: looked in {looked}{place.hint()}"
        )
    return place.json_path, place.images


@dataclass(frozen=True)
class _Place:
    """One folder that may hold a split."""

    base: Path
    split: str
    name: str

    @property
    def spellings(self) -> list[str]:
        return [self.split, *([_SPELLINGS[self.split]] if self.split in _SPELLINGS else [])]

    @property
    def jsons(self) -> list[str]:
        """What the annotations may be called, the preferred first."""
        prefixes = [_MMTRACKING[self.name]] if self.name in _MMTRACKING else _MMTRACKING.values()
        return [
            name
            for s in self.spellings
            for name in (
                f"{s}.json",
                f"{s}/instances.json",
                f"annotations_{s}.json",
                f"annotations/{s}.json",
                f"annotations/annotations_{s}.json",
                *(f"annotations/{prefix}_{s}.json" for prefix in prefixes),
            )
        ]

    @property
    def folders(self) -> list[str]:
        return [name for s in self.spellings for name in (f"{s}/JPEGImages", s)] + ["JPEGImages"]

    @property
    def json_path(self) -> Path | None:
        return next((path for path in map(self.base.joinpath, self.jsons) if path.is_file()), None)

    @property
    def images(self) -> Path | None:
        return next((path for path in map(self.base.joinpath, self.folders) if _holds_images(path)), None)

    def hint(self) -> str:
        """What is there instead, as the end of a sentence; empty if nothing that is known."""
        for s in self.spellings:
            for archive in (self.base / f"{s}{suffix}" for suffix in _ARCHIVES):
                if archive.is_file():
                    return f"; {archive} is there but was not unpacked"
        for s in self.spellings:
            full_rate = f"{s}_all_frames"
            if any((self.base / f"{full_rate}{suffix}").exists() for suffix in ("", ".json")):
                return (
                    f"; {self.base / full_rate} holds the videos at full frame rate, which is other data; "
                    f"if you mean it, give the split {full_rate!r}"
                )
        return ""


def _holds_images(path: Path) -> bool:
    """A folder with something in it that may be a video; annotations alone do not count."""
    return path.is_dir() and any(
        entry.suffix != ".json" and not entry.name.endswith(_ARCHIVES) and entry.name not in _NO_IMAGES
        for entry in path.iterdir()
    )


def _plain(name: str) -> str:
    """``YouTubeVIS_2019`` to ``youtubevis2019``: spelling that does not tell data sets apart."""
    return name.lower().replace("_", "").replace("-", "")


def _sub_folders(root: Path, names: Iterable[str]) -> list[Path]:
    names = tuple(names)
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and _plain(entry.name) in names)


def _other_data_sets(root: Path, places: list[_Place], name: str) -> str:
    """Known data sets in a folder in which the wanted one is not."""
    searched = {place.base for place in places}
    found = [
        f"{folder.name} (data={known})"
        for known, names in FOLDERS.items()
        for folder in _sub_folders(root, names)
        if folder not in searched
    ]
    return f"; {root} has the folders {', '.join(found)}" if found else ""
