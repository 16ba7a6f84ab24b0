"""The category tables of the published data sets, and how COCO's classes map onto theirs.

Ids and names as the data sets have them ("Vehical" included). Label ``i`` of a model is the ``i``-th
category by rising id, here as in the published code.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping


def _numbered(names: str, unused: tuple[int, ...] = ()) -> Mapping[int, str]:
    """Names in the order of their ids, from 1 on, without the ids that are not used."""
    ids = (i for i in itertools.count(1) if i not in unused)
    return dict(zip(ids, names.split(","), strict=False))


YTVIS2019 = _numbered(
    "person,giant_panda,lizard,parrot,skateboard,sedan,ape,dog,snake,monkey,hand,rabbit,duck,cat,cow,fish,"
    "train,horse,turtle,bear,motorbike,giraffe,leopard,fox,deer,owl,surfboard,airplane,truck,zebra,tiger,"
    "elephant,snowboard,boat,shark,mouse,frog,eagle,earless_seal,tennis_racket"
)
YTVIS2021 = _numbered(
    "airplane,bear,bird,boat,car,cat,cow,deer,dog,duck,earless_seal,elephant,fish,flying_disc,fox,frog,"
    "giant_panda,giraffe,horse,leopard,lizard,monkey,motorbike,mouse,parrot,person,rabbit,shark,skateboard,"
    "snake,snowboard,squirrel,surfboard,tennis_racket,tiger,train,truck,turtle,whale,zebra"
)
OVIS = _numbered(
    "Person,Bird,Cat,Dog,Horse,Sheep,Cow,Elephant,Bear,Zebra,Giraffe,Poultry,Giant_panda,Lizard,Parrot,"
    "Monkey,Rabbit,Tiger,Fish,Turtle,Bicycle,Motorcycle,Airplane,Boat,Vehical"
)

COCO = _numbered(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
    "surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,"
    "broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,"
    "mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,"
    "teddy bear,hair drier,toothbrush",
    unused=(12, 26, 29, 30, 45, 66, 68, 69, 71, 83),
)

TABLES: Mapping[str, Mapping[int, str]] = {
    "ytvis2019": YTVIS2019,
    "ytvis2021": YTVIS2021,
    "ytvis2022": YTVIS2021,  # the same videos and classes, longer ones added to validation and test
    "ovis": OVIS,
    "coco": COCO,
}
"""Category id to name, by data set."""


def _pairs(text: str) -> Mapping[int, int]:
    return {int(a): int(b) for a, b in (pair.split(":") for pair in text.split())}


# Bicycle to motorbike and skis to snowboard are meant so: VIS classes that look alike.
_TO_YTVIS2021 = _pairs(
    "1:26 2:23 3:5 4:23 5:1 7:36 8:37 9:4 16:3 17:6 18:9 19:19 21:7 22:12 23:2 24:40 25:18 34:14 35:31 "
    "36:31 41:29 42:33 43:34"
)
COCO_TO: Mapping[str, Mapping[int, int]] = {
    "ytvis2019": _pairs(
        "1:1 2:21 3:6 4:21 5:28 7:17 8:29 9:34 17:14 18:8 19:18 21:15 22:32 23:20 24:30 25:22 35:33 36:33 "
        "41:5 42:27 43:40"
    ),
    "ytvis2021": _TO_YTVIS2021,
    "ytvis2022": _TO_YTVIS2021,
    "ovis": _pairs("1:1 2:21 3:25 4:22 5:23 6:25 8:25 9:24 17:3 18:4 19:5 20:6 21:7 22:8 23:9 24:10 25:11"),
}
"""COCO category id to that of a data set; classes that are not named are dropped. The maps of the
published joint training (coco2ytvis2019, coco2ytvis2021, coco2ovis)."""
