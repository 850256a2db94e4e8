"""Many images: numbering, resuming, and what happens when some cannot be read."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.configuration import DetectorConfig, stored_boxes
from detector.detections import Format
from detector.images import ImageFile, find_images
from detector.job import Report, Task, is_picture, plan, run_job
from detector.rcnn import RCNN
from proposals.files import by_rank, write_shard

SETTINGS = {"nms_iou": 0.3, "seed": 0}


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(5):
        image = np.zeros((40 + index, 60, 3), np.uint8)
        image[:10, :15] = (255, 0, 0)
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


def tasks(photos: Path, output: Path) -> list[Task]:
    return plan(find_images([str(photos)]), output)[0]


def run(
    detector: RCNN,
    photos: Path,
    output: Path,
    format: Format = "coco",
    resume: bool = False,
    on_image: Callable[[Task], None] = lambda task: None,
    on_failure: Callable[[str], None] = lambda sentence: None,
    workers: int = 0,
    pictures: bool = True,
) -> Report:
    return run_job(
        detector,
        tasks(photos, output),
        output=output,
        format=format,
        settings=SETTINGS,
        resume=resume,
        on_image=on_image,
        on_failure=on_failure,
        workers=workers,
        pictures=pictures,
    )


def kill_at(image: str) -> Callable[[Task], None]:
    def on_image(task: Task) -> None:
        if task.image.name == image:
            raise Killed

    return on_image


def test_writes_a_result_and_pictures(colour_detector: RCNN, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    report = run(colour_detector, photos, output)
    assert report.finished == 5 and report.resumed == 0 and report.failures == {}
    assert report.result == output / "detections.json"
    content = json.loads(report.result.read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{i}.png" for i in range(5)]
    assert {annotation["category_id"] for annotation in content["annotations"]} == {3}
    assert sorted(path.name for path in output.iterdir()) == [
        *(f"{i}_detections.jpg" for i in range(5)),
        "detections.json",
    ]


@pytest.mark.parametrize("cut", [0, 1, 40])
@pytest.mark.parametrize("format", ["coco", "csv", "ilsvrc"])
def test_a_stopped_job_resumes_to_the_same_file(
    colour_detector: RCNN, photos: Path, tmp_path: Path, cut: int, format: Format
) -> None:
    """Killed between images, or in the middle of writing a line of the journal."""
    whole = run(colour_detector, photos, tmp_path / "whole", format).result
    output = tmp_path / "out"
    with pytest.raises(Killed):
        run(colour_detector, photos, output, format, on_image=kill_at("3.png"))
    journal = output / "detections.unfinished.jsonl"
    assert not any(path.name.startswith("detections.") for path in output.iterdir() if path != journal)
    journal.write_bytes(journal.read_bytes()[: -cut or None])

    report = run(colour_detector, photos, output, format, resume=True)
    assert (report.resumed, report.finished) == ((3, 2) if cut == 0 else (2, 3))
    assert whole and report.result and report.result.read_bytes() == whole.read_bytes()
    assert not journal.exists()


@pytest.mark.parametrize("workers", [1, 8])
def test_images_searched_ahead_give_the_same_file(
    colour_detector: RCNN, photos: Path, tmp_path: Path, workers: int
) -> None:
    """Also where one cannot be read, and where the job was stopped."""
    (photos / "1.png").write_bytes(b"no image")
    alone = run(colour_detector, photos, tmp_path / "alone")
    with pytest.raises(Killed):
        run(colour_detector, photos, tmp_path / "out", on_image=kill_at("3.png"), workers=workers)
    found = run(colour_detector, photos, tmp_path / "out", resume=True, workers=workers)
    assert alone.result and found.result and found.result.read_bytes() == alone.result.read_bytes()
    assert found.failures == alone.failures and list(found.failures) == ["1.png"]
    assert found.resumed == 2 and colour_detector.timer.seconds["proposals"] > 0


def test_without_resume_a_job_starts_again(colour_detector: RCNN, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(colour_detector, photos, tmp_path / "out", on_image=kill_at("3.png"))
    assert run(colour_detector, photos, tmp_path / "out").finished == 5


def test_resuming_with_other_settings_is_refused(colour_detector: RCNN, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(Killed):
        run(colour_detector, photos, output, on_image=kill_at("3.png"))
    with pytest.raises(ValueError, match=r"other settings \(nms_iou\)"):
        run_job(
            colour_detector,
            tasks(photos, output),
            output=output,
            format="coco",
            settings=SETTINGS | {"nms_iou": 0.5},
            resume=True,
        )
    (output / "detections.unfinished.jsonl").write_text("something else\n")
    with pytest.raises(ValueError, match="not a journal"):
        run(colour_detector, photos, output, resume=True)


@pytest.mark.parametrize(
    "line", [b"half a line", b"[]", b"7", b"{}", b'{"image_id": []}', b"\xff", b'{"no": 1}']
)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_journal_is_named(
    colour_detector: RCNN, photos: Path, tmp_path: Path, number: int, line: bytes
) -> None:
    with pytest.raises(Killed):
        run(colour_detector, photos, tmp_path, on_image=kill_at("3.png"))
    journal = tmp_path / "detections.unfinished.jsonl"
    lines = journal.read_bytes().splitlines()
    lines[number - 1] = line
    journal.write_bytes(b"\n".join(lines) + b"\n")
    damaged = journal.read_bytes()
    with pytest.raises(ValueError, match=rf"unfinished\.jsonl:{number}: is not a journal of a stopped job"):
        run(colour_detector, photos, tmp_path, resume=True)
    assert journal.read_bytes() == damaged


def test_a_stopped_job_does_not_know_other_files_of_the_same_names(
    colour_detector: RCNN, photos: Path, tmp_path: Path
) -> None:
    other, output = tmp_path / "other", tmp_path / "out"
    shutil.copytree(photos, other)
    with pytest.raises(Killed):
        run(colour_detector, other, output, on_image=kill_at("3.png"))
    with pytest.raises(Killed):
        run(colour_detector, photos, output, on_image=kill_at("3.png"), resume=True)
    Image.new("RGB", (60, 40)).save(photos / "1.png")
    report = run(colour_detector, photos, output, resume=True)
    assert report.resumed == 2 and report.finished == 3  # one of the five has changed since


def test_numbers_are_the_same_as_integers_and_as_floats(
    colour_detector: RCNN, photos: Path, tmp_path: Path
) -> None:
    header = {"settings": SETTINGS | {"seed": 0.0}}
    (tmp_path / "detections.unfinished.jsonl").write_text(json.dumps(header) + "\n")
    assert run(colour_detector, photos, tmp_path, resume=True).finished == 5


def test_a_picture_that_cannot_be_written_costs_no_detections(
    colour_detector: RCNN, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "2_detections.jpg").mkdir(parents=True)
    sentences: list[str] = []
    report = run(colour_detector, photos, tmp_path / "out", on_failure=sentences.append)
    assert report.finished == 5 and list(report.failures) == ["2.png"]
    assert sentences[0].startswith(f"{tmp_path}/out/2_detections.jpg: no picture could be written (")
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["images"]) == 5


def test_one_unreadable_image_does_not_stop_the_rest(
    colour_detector: RCNN, photos: Path, tmp_path: Path
) -> None:
    (photos / "2.png").write_bytes(b"no image")
    sentences: list[str] = []
    report = run(colour_detector, photos, tmp_path / "out", on_failure=sentences.append)
    assert report.finished == 4 and list(report.failures) == ["2.png"]
    assert sentences == [f"{photos / '2.png'}: not an image"]


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        (
            (10, 0, 62, 20),
            r"2\.png: its proposals are of another image: a box reaches 62, the image is 60 wide",
        ),
        ((0, 0, 10, 44), r"2\.png: .* a box reaches 44, the image is 42 high"),
        ((0, -9, 10, 10), r"2\.png: .* a box reaches -9, the image is 42 high"),
        ((0, float("nan"), 10, 10), r"2\.png: .* a box reaches nan, the image is 42 high"),
        ((-0.5, 0, 61, 43), None),
    ],
)
def test_boxes_of_another_image_are_refused(
    colour_detector: RCNN, photos: Path, tmp_path: Path, box: tuple[float, ...], sentence: str | None
) -> None:
    def boxes_of(name: str) -> np.ndarray:
        return np.array([(0, 0, 15, 10), box] if name == "2.png" else np.empty((0, 4)), np.float32)

    report = run_job(
        colour_detector,
        tasks(photos, tmp_path),
        output=tmp_path,
        format="coco",
        settings=SETTINGS,
        boxes_of=boxes_of,
    )
    assert report.finished == (5 if sentence is None else 4)
    assert sentence is None or re.fullmatch(sentence, report.failures["2.png"])


def test_two_images_do_not_share_stored_boxes(tmp_path: Path) -> None:
    boxes = {
        name: by_rank(np.full((1, 4), i, np.float32))
        for i, name in enumerate(("a/1.jpg", "b/2.jpg", "3.jpg"))
    }
    write_shard(tmp_path / "1.npz", boxes)
    config = DetectorConfig(proposal_files=[str(tmp_path)])
    look_up = stored_boxes(config, ["a/1.jpg", "x/1.jpg", "x/2.png", "y/2.jpg", "z/3.jpg"])
    assert look_up is not None and look_up("a/1.jpg")[0, 0] == 0 and look_up("z/3.jpg")[0, 0] == 2
    for name, entry in (("x/1.jpg", "a/1.jpg"), ("x/2.png", "b/2.jpg"), ("y/2.jpg", "b/2.jpg")):
        with pytest.raises(
            ValueError, match=f"{name}: has no proposals under this name, and those of {entry} fit 2"
        ):
            look_up(name)
    with pytest.raises(ValueError, match=r"4\.jpg: no proposals for this image"):
        look_up("4.jpg")


def test_if_nothing_can_be_read_nothing_is_written(
    colour_detector: RCNN, photos: Path, tmp_path: Path
) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"")
    report = run(colour_detector, photos, tmp_path / "out")
    assert report.result is None and len(report.failures) == 5
    assert list((tmp_path / "out").iterdir()) == []


def test_an_image_list_gives_the_numbers(tmp_path: Path) -> None:
    images = [ImageFile(Path(name), name) for name in ("b.jpg", "x.jpg", "a.png", "a.jpg")]
    planned, failures = plan(images, tmp_path, {"a": 12, "b": 34})
    assert [(task.image.name, task.image_id) for task in planned] == [("b.jpg", 34), ("a.png", 12)]
    assert failures == {
        "x.jpg": "x.jpg: is not in the image list",
        "a.jpg": "a.jpg: has the same index 12 as a.png",
    }
    images = [ImageFile(Path("photos/n02113978_996.JPEG"), "n02113978_996.JPEG")]
    planned, _ = plan(images, tmp_path, {"n02113978/n02113978_996": 7})
    assert [task.image_id for task in planned] == [7]
    with pytest.raises(ValueError, match="two images of the same name in different folders"):
        plan(images, tmp_path, {"a/x": 1, "b/x": 2})


def test_images_of_the_same_name_get_pictures_of_their_own(tmp_path: Path) -> None:
    images = [ImageFile(Path(name), name) for name in ("a/x.jpg", "b/x.jpg", "b/x.png")]
    planned, _ = plan(images, tmp_path)
    assert [task.picture.name for task in planned] == [
        "x_detections.jpg",
        "x_detections-2.jpg",
        "x_detections-3.jpg",
    ]
    assert [task.image_id for task in planned] == [1, 2, 3]


def test_no_picture_is_written_over_an_image(
    colour_detector: RCNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its folder and that of the pictures are called."""
    monkeypatch.chdir(tmp_path)
    for name in ("p.png", "p_detections.jpg"):
        Image.new("RGB", (60, 40)).save(name)
    before = Path("p_detections.jpg").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (Path(), tmp_path, Path("link")):
        planned, _ = plan(
            find_images(["p.png", str(Path("link", "..", tmp_path.name, "p_detections.jpg"))]), output
        )
        assert [task.picture.name for task in planned] == [
            "p_detections-2.jpg",
            "p_detections_detections.jpg",
        ]
    report = run_job(colour_detector, planned, output=output, format="coco", settings=SETTINGS)
    assert report.finished == 2 and Path("p_detections.jpg").read_bytes() == before


def test_long_names_are_cut(colour_detector: RCNN, tmp_path: Path) -> None:
    for ending in ("1.png", "2.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / f"{'ä' * 120}{ending}")
    report = run(colour_detector, tmp_path, tmp_path / "out")
    assert report.failures == {}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == [
        "ä" * 111 + "_detections-2.jpg",
        "ä" * 112 + "_detections.jpg",
    ]


def test_pictures_of_a_job_are_no_images_of_the_next(
    colour_detector: RCNN, photos: Path, tmp_path: Path
) -> None:
    """Results may go into the folder of the photos; there they are not found, but may be named."""
    run(colour_detector, photos, photos)
    found = find_images([str(photos), str(photos / "*")], lambda path: is_picture(path, photos))
    assert [image.name for image in found] == [f"{i}.png" for i in range(5)]
    picture = photos / "0_detections.jpg"
    assert len(find_images([str(picture)], lambda path: is_picture(path, photos))) == 1
    assert not is_picture(picture, tmp_path) and not is_picture(photos / "detections.jpg", photos)


def test_a_resumed_job_draws_what_was_not_drawn(colour_detector: RCNN, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(Killed):
        run(colour_detector, photos, output, on_image=kill_at("3.png"), pictures=False)
    assert not list(output.glob("*.jpg"))
    (photos / "0.png").write_bytes(b"no image any more")
    report = run(colour_detector, photos, output, resume=True)
    assert report.resumed == 2 and report.finished == 2 and list(report.failures) == ["0.png"]
    assert len(list(output.glob("*_detections.jpg"))) == 4
