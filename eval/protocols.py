"""The rules of each benchmark, and the one call that applies them: detections + annotations -> result."""

from dataclasses import replace

import numpy as np

from eval.average_precision import average_precisions
from eval.coco_metrics import evaluate_coco
from eval.dataset import Annotations, Detections
from eval.evaluation import ClassResult, Evaluation
from eval.matching import BEST_BOX, FREE_BOXES, TRUE_POSITIVE, Matches, match, small_box_thresholds

PROTOCOLS = ("ilsvrc", "iou50", "voc2007", "voc2012", "coco")
NO_BLACKLIST = "the coco protocol knows no blacklist: leave it out, or evaluate as ilsvrc or iou50"


def evaluate(
    detections: Detections,
    annotations: Annotations,
    *,
    protocol: str = "ilsvrc",
    iou: float = 0.5,
    engine: str = "own",
) -> Evaluation:
    """Evaluate under one of PROTOCOLS; `engine` "pycocotools" lets that program compute coco.

    ilsvrc   every box may be matched at min(iou, its own threshold); a taken box is passed over
    iou50    PASCAL VOC's matching (best box) but IoU > iou, area under the curve; every box counts but crowds
    voc2007  PASCAL VOC's (best box, IoU >= iou) with eleven points; difficult boxes count neither way
    voc2012  as voc2007 with the area under the curve
    coco     mean over IoU .50:.05:.95 (so that no other `iou` is taken), see eval.coco_metrics
    Crowd boxes are ignored by all; only COCO's matching treats them by its own overlap measure.
    """
    check(annotations, protocol=protocol, iou=iou, engine=engine)
    if protocol == "coco":
        return evaluate_coco(detections, annotations, engine=engine)
    ignored = annotations.crowd
    if protocol in ("voc2007", "voc2012"):
        ignored = ignored | annotations.difficult
    if protocol == "ilsvrc":
        thresholds, rule = small_box_thresholds(annotations, iou), FREE_BOXES
    else:
        least = np.nextafter(iou, np.inf) if protocol == "iou50" else iou  # what lies above `iou`
        thresholds, rule = np.full(len(annotations.label), least), BEST_BOX
    matches = match(detections, annotations, thresholds=thresholds, rule=rule, ignored_boxes=ignored)
    result = Evaluation(protocol, iou, (), detections, annotations, matches)
    return replace(
        result, classes=_class_results(annotations, matches, average_precisions(matches, style=result.style))
    )


def check(annotations: Annotations, *, protocol: str, iou: float, engine: str) -> None:
    """Refuse what `evaluate` cannot do, before there are detections.

    Raises:
        ValueError: What `check_rules` refuses, and a blacklist where the protocol knows none.
    """
    check_rules(protocol=protocol, iou=iou, engine=engine)
    if protocol == "coco" and len(annotations.blacklist):
        raise ValueError(NO_BLACKLIST)


def check_rules(*, protocol: str, iou: float, engine: str = "own") -> None:
    """Refuse rules that there are not, before there are annotations.

    Raises:
        ValueError: An unknown protocol, an IoU or engine that it does not take.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    if not 0 < iou <= 1:
        raise ValueError(f"the IoU threshold is {iou:g}, expected above 0 and at most 1")
    if protocol == "coco" and iou != 0.5:
        raise ValueError(
            f"the coco protocol averages over IoU 0.50 to 0.95 and takes no threshold of {iou:g}"
        )
    if engine not in ("own", "pycocotools") or (engine == "pycocotools" and protocol != "coco"):
        raise ValueError(
            f"engine {engine!r} does not compute {protocol}; pycocotools is for coco, own for all"
        )


def _class_results(annotations: Annotations, matches: Matches, aps: np.ndarray) -> tuple[ClassResult, ...]:
    """Put the table together from matches and APs (C,)."""
    sizes = np.diff(matches.class_start)
    hits = np.add.reduceat(
        np.append(matches.outcome == TRUE_POSITIVE, False), matches.class_start[:-1], dtype=np.int64
    )
    hits[sizes == 0] = 0  # reduceat gives an empty slice its first element
    return tuple(
        ClassResult(
            category.id, category.wnid, category.name, float(ap),
            int(hit) / int(positives) if positives else float("nan"), int(positives), int(size),
        )
        for category, ap, hit, positives, size in zip(
            annotations.categories, aps, hits, matches.positives, sizes, strict=True
        )
    )  # fmt: skip
