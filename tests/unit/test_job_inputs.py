"""Inputs of every kind become the same rows; what does not fit the model is refused with its place."""

from __future__ import annotations

import asyncio
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from agent.contract.manifest import Preprocessing
from agent.contract.tensors import TensorSpec
from controller.errors import LeptaError, TooLarge, UserError
from controller.job_inputs import kinds
from controller.job_inputs.preparing import Inputs
from controller.job_inputs.source import Source
from controller.job_inputs.wanted import Wanted

SPEC = TensorSpec("image", "int8", (2, 2), 0.1, 0)
WANTED = Wanted((SPEC,))
VALUES = np.arange(20, dtype=np.float32).reshape(5, 2, 2) / 4
LABELS = np.array([0, 1, 2, 1, 0])
NAMES = ("cat", "dog", "cow")


def opened(path: Path, wanted: Wanted = WANTED, limit: int = 10**6) -> Source:
    folder = path.parent / "laid-out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return Source(kinds.lay_out(path, wanted, folder, limit), path, folder)


def npz(path: Path, pack: Callable[..., None] = np.savez, /, **arrays: np.ndarray) -> Path:
    with path.open("wb") as file:
        pack(file, **arrays)
    return path


def npy(path: Path, array: np.ndarray) -> Path:
    with path.open("wb") as file:
        np.save(file, array)
    return path


def csv_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def table(path: Path, **columns: object) -> Path:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def rows_as_csv(header: str = "image_0,image_1,image_2,image_3,label,id") -> str:
    lines = [
        ",".join(map(str, [*row.reshape(-1), label, f"r{n}"]))
        for n, (row, label) in enumerate(zip(VALUES, LABELS, strict=True))
    ]
    return "\n".join([header, *lines]) + "\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda p: npy(p, VALUES),
        lambda p: npy(p, VALUES.astype(">f8")),
        lambda p: npy(p, np.asfortranarray(VALUES)),
        lambda p: npz(p, image=VALUES),
        lambda p: npz(p, x=VALUES),
        lambda p: npz(p, np.savez_compressed, image=VALUES, labels=LABELS),
        lambda p: npz(p, np.savez_compressed, image=np.asfortranarray(VALUES)),
        lambda p: csv_file(p, rows_as_csv()),
        lambda p: csv_file(p, "\n".join(",".join(map(str, row.reshape(-1))) for row in VALUES)),
        lambda p: csv_file(p, rows_as_csv("a,b,c,d,label,id")),
        lambda p: table(p, image=list(VALUES.reshape(5, 4)), label=LABELS),
        lambda p: table(p, image=pyarrow.FixedSizeListArray.from_arrays(VALUES.reshape(-1), 4)),
        lambda p: table(p, **{f"image_{n}": VALUES.reshape(5, 4)[:, n] for n in (3, 1, 0, 2)}),
    ],
)
def test_a_file_of_any_kind_gives_the_rows_that_are_in_it(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = opened(make(tmp_path / "input"))
    assert source.rows == 5
    assert source.row_bytes == 16
    for first, last in ((0, 5), (1, 3), (4, 5), (2, 2)):
        [array] = source.read(first, last).values()
        assert array.dtype == np.float32
        assert np.array_equal(array, VALUES[first:last])
    source.close()


def test_numbers_of_the_models_own_type_are_sent_as_they_are(tmp_path: Path) -> None:
    stored = np.arange(8, dtype=np.int8).reshape(2, 2, 2)
    source = opened(npy(tmp_path / "input", stored))
    assert source.row_bytes == 4
    [tensor] = source.tensors(1, 2)
    assert (tensor.name, tensor.dtype, tensor.shape) == ("image", "int8", (1, 2, 2))
    assert tensor.data == stored[1:].tobytes()


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_labels_and_ids_come_along_and_labels_may_be_names(tmp_path: Path, kind: str) -> None:
    path, ids = tmp_path / "input", np.array([f"r{n}" for n in range(5)])
    names = np.array(NAMES)[LABELS]
    if kind == "npz":
        npz(path, image=VALUES, labels=names, id=ids)
    elif kind == "csv":
        csv_file(path, rows_as_csv())
    else:
        table(path, image=list(VALUES.reshape(5, 4)), label=names.tolist(), id=ids.tolist())
    source = opened(path, Wanted((SPEC,), NAMES))
    assert source.labels is not None
    assert source.ids is not None
    assert source.labels.tolist() == LABELS.tolist()
    assert source.ids.tolist() == ids.tolist()


def test_a_model_with_several_inputs_finds_each_by_its_name(tmp_path: Path) -> None:
    wanted = Wanted((SPEC, TensorSpec("age", "float32", (1,))))
    source = opened(csv_file(tmp_path / "input", "age,image_3,image_2,image_1,image_0\n7,4,3,2,1\n"), wanted)
    assert {name: array.reshape(-1).tolist() for name, array in source.read(0, 1).items()} == {
        "image": [1, 2, 3, 4],
        "age": [7],
    }


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"other": np.ones((3, 2, 2))}, "no array called image; it has other"),
        ({"image": np.ones((3, 2, 3))}, r"needs shape \['rows', 2, 2\], the file has \[3, 2, 3\]"),
        ({"image": np.ones((3, 2, 2)), "labels": np.ones(2)}, "same number of rows"),
        ({"image": np.ones((3, 2, 2)), "labels": np.ones((3, 2))}, "one value per row"),
        ({"image": np.ones((3, 2, 2)), "labels": np.full(3, 0.5)}, "must be class numbers, the file has 0.5"),
        ({"image": np.ones((3, 2, 2)), "labels": np.full(3, "bee")}, "'bee' is no class number and no class"),
        ({"image": np.ones((0, 2, 2))}, "at least one"),
        ({"image": np.full((3, 2, 2), "a")}, "needs numbers"),
        ({"image": np.full((3, 2, 2), None, dtype=object)}, "needs numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_what_is_wrong(
    tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        opened(npz(tmp_path / "bad", **arrays))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("image_0,image_1,image_2\n1,2,3\n", "lacks image_3"),
        ("a,b\n1,2\n", "needs the columns image_0 to image_3"),
        ("a,b,c,d\n1,2,3,4\n1,2,x,4\n", "row 2, column 'c': 'x' is no number"),
        ("a,b,c,d\n1,2,3,4\n1,2,3\n", "row 2 of the CSV has 3 cells, the header 4"),
        ("a,b,c,d\n", "no rows"),
        ("a,a,c,d\n1,2,3,4\n", "'a' is there twice"),
        ('a,b,c,"d\n1,2,3,4\n', "cannot be read"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_with_row_and_column(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        opened(csv_file(tmp_path / "bad", text))


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"image": [[1.0, 2.0], [3.0, 4.0]]}, "has lists of 2 numbers; input 'image' takes 4"),
        ({"image": [[1.0] * 4, [1.0] * 3]}, "differ in length: 3 to 4"),
        ({"image": [[1.0] * 4, None]}, "1 missing values"),
        ({"image": [[1.0, 2.0, 3.0, None]]}, "lists with missing values"),
        ({f"image_{n}": ["x"] for n in range(4)}, "holds text"),
        ({"image": [{"a": 1}]}, "column 'image' is of type struct"),
    ],
)
def test_a_parquet_file_that_does_not_fit_is_refused_with_its_column(
    tmp_path: Path, columns: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        opened(table(tmp_path / "bad", **columns))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00\x00garbage", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00", b"PAR1 no", b"\x93NUMPYx"]
)
def test_what_is_no_input_is_refused_whatever_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(UserError):
        opened(path)


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_an_archive_that_was_cut_or_damaged_is_refused(tmp_path: Path, pack: Callable[..., None]) -> None:
    whole = npz(tmp_path / "whole", pack, image=np.random.default_rng(1).random((500, 2, 2))).read_bytes()
    for content in (whole[:300], whole[:-30]):
        path = tmp_path / "cut"
        path.write_bytes(content)
        with pytest.raises(UserError):
            opened(path)
    path = npy(tmp_path / "array", VALUES)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="4 bytes of its array are missing"):
        opened(path)


def test_rows_that_take_more_than_allowed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        opened(npz(tmp_path / "big", np.savez_compressed, image=np.zeros((1000, 2, 2))), limit=10_000)


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


def archive(path: Path, kind: str, members: dict[str, bytes]) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, content in members.items():
                zipped.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{kind}") as tarred:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tarred.addfile(info, io.BytesIO(content))
    return path


PICTURES = Wanted((SPEC,), NAMES, Preprocessing(height=2, width=2, scale=1.0))


@pytest.mark.parametrize("kind", ["zip", "", "gz", "xz"])
def test_an_archive_of_pictures_is_a_row_each_and_folders_named_like_classes_are_labels(
    tmp_path: Path, kind: str
) -> None:
    members = {
        "set/dog/1.png": picture(10),
        "set/cat/2.png": picture(20),
        "set/.hidden": b"x",
        "set/3.png": picture(30),
    }
    source = opened(archive(tmp_path / "pictures", kind, members), PICTURES)
    assert source.ids is not None
    assert source.labels is not None
    values = {
        str(i): array.reshape(-1).tolist() for i, array in zip(source.ids, source.read(0, 3)["image"], strict=True)
    }
    assert values == {"set/dog/1.png": [10] * 4, "set/cat/2.png": [20] * 4, "set/3.png": [30] * 4}
    assert dict(zip(source.ids.tolist(), source.labels.tolist(), strict=True)) == {
        "set/dog/1.png": 1,
        "set/cat/2.png": 0,
        "set/3.png": -1,
    }


@pytest.mark.parametrize(
    ("members", "wanted", "complaint"),
    [
        ({"a.png": b"no picture"}, PICTURES, "a.png is no picture that can be read"),
        ({"a.png": picture(1), "b.tiff": b"x"}, PICTURES, "'b.tiff', which is no picture"),
        ({".hidden": b"x"}, PICTURES, "no pictures"),
        ({"a.png": picture(1)}, WANTED, "does not say how a picture becomes its input"),
        ({"a.png": picture(1)}, Wanted((SPEC,), (), Preprocessing(3, 3)), "do not fit input 'image'"),
    ],
)
def test_pictures_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, members: dict[str, bytes], wanted: Wanted, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        opened(archive(tmp_path / "bad", "zip", members), wanted)


def test_what_must_be_unpacked_is_so_in_another_process_once_and_is_gone_when_no_job_reads_it(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "digest", rows_as_csv())
    inputs = Inputs(tmp_path / "inputs", 10**6)

    async def scenario() -> None:
        first, second = await asyncio.gather(inputs.open(path, WANTED), inputs.open(path, WANTED))
        assert first.folder == second.folder
        await inputs.forget({first.folder})
        assert [p.name for p in (tmp_path / "inputs").iterdir()] == [first.folder.name]
        await inputs.forget(())
        assert list((tmp_path / "inputs").iterdir()) == []
        # Who has it open goes on reading.
        assert np.array_equal(second.read(0, 5)["image"], VALUES)
        first.close()
        second.close()

    asyncio.run(scenario())


def test_what_a_reader_in_another_process_finds_is_told_as_if_it_were_here(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "digest", "a,b,c,d\n1,2,x,4\n")
    with pytest.raises(LeptaError, match="row 1, column 'c'"):
        asyncio.run(Inputs(tmp_path / "inputs", 10**6).open(path, WANTED))
    assert list((tmp_path / "inputs").iterdir()) == []
