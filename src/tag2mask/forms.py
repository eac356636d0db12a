"""The forms in which people have tags: `photos.form` -> what `--data` names.

`formats` has the reader of each. It is not imported where only the names are needed.
"""

from collections.abc import Iterable

FORMS = {
    "manifest": "SageMaker Ground Truth: its .manifest",
    "vertex": "Vertex AI: its import file, .csv or .jsonl",
    "csv": "a table: .csv or .tsv; a column of file names, and one of tags or one for each tag",
    "xlsx": "an Excel table: .xlsx",
    "jsonl": "JSON lines: file_name and tags",
    "parquet": "a .parquet file of Hugging Face, or a folder",
    "voc-lists": "VOC: ImageSets/Main with cat_train.txt",
    "voc": "VOC: VOC2012/, a list in it (val.txt), or its cls_labels.npy",
    "camtrap-dp": "Camtrap DP: the folder with media.csv, observations.csv",
    "coco": "COCO or COCO Camera Traps: the folder, or the .json file",
    "label-studio": "Label Studio: its .json or JSON-MIN export",
    "fiftyone": "FiftyOne: labels.json, or its folder",
    "mmpretrain": "mmpretrain: a .json with data_list",
    "json": 'a .json file: {"a.jpg": ["cat"]}, or [{"file_name": "a.jpg", "tags": ["cat"]}]',
    "yolo": "YOLO: its data.yaml, or a folder of its pictures",
    "yaml": "a .yaml file: a.jpg: [cat, dog]",
    "cvat": "CVAT for images: its .xml",
    "txt": "a table in a .txt file",
    "metadata.csv": "a Hugging Face folder: with a file metadata.csv",
    "metadata.jsonl": "a Hugging Face folder: with a file metadata.jsonl",
    "roboflow": "Roboflow: a folder with _classes.csv",
    "labelme": "LabelMe: a folder of .json files and pictures",
    "split": "a folder with train/ and val/ (valid, validation), each in one of these forms",
    "keywords": "a folder of pictures with keywords in them or beside them",
    "folder": "a folder with a folder for each tag",
}


def bullets(names: Iterable[str] = FORMS) -> str:
    """These forms as the lines of an error."""
    return "".join(f"\n  - {FORMS[name]}" for name in names)
