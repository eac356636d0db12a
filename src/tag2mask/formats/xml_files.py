"""XML without entities: neither some that grow to gigabytes, nor some that name other files."""

from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tag2mask.errors import DataError
from tag2mask.files import read_bytes


class _NoEntities(ElementTree.TreeBuilder):
    def doctype(self, *_: object) -> NoReturn:
        raise DataError("has a document type (<!DOCTYPE), which could define harmful entities")


def parse_xml(data: bytes | str) -> Element:
    """XML to its root. Raises ParseError if it is broken, DataError if it could define entities."""
    try:
        return ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoEntities()))
    except (LookupError, ValueError) as error:  # an encoding that does not exist
        raise ElementTree.ParseError(str(error)) from None


def read_xml(path: Path) -> Element:
    """An XML file to its root. Raises DataError."""
    try:
        return parse_xml(read_bytes(path))
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: not valid XML ({error})") from None
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
