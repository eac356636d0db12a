"""XMP packets, inside pictures and in .xmp files, to keywords."""

from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tag2mask.errors import DataError
from tag2mask.formats.xml_files import parse_xml
from tag2mask.photos.table import clean_tag

Keyword = tuple[str, ...]  # its levels, the top first: ("Animals", "Dog"); mostly one

MOST_BYTES = 1 << 24  # of a packet, and of a text beside a picture
MOST_LEVELS = 64
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
ACDSEE = "{http://ns.acdsee.com/iptc/1.0}"
# Fields with keywords -> what separates the levels in one. Names of namespaces are without their
# last "/", which some programs leave out.
FIELDS = {
    "{http://purl.org/dc/elements/1.1}subject": "|",
    "{http://ns.adobe.com/lightroom/1.0}hierarchicalSubject": "|",
    "{http://www.digikam.org/ns/1.0}TagsList": "/",
    "{http://ns.microsoft.com/photo/1.0}LastKeywordXMP": "/",
    "{http://ns.iview-multimedia.com/mediapro/1.0}CatalogSets": "|",
    f"{ACDSEE}keywords": "|",
}


def parse_packet(data: bytes | str) -> Element:
    """XML to its root, as `parse_xml`. Raises DataError if it is huge, too."""
    if len(data) > MOST_BYTES:
        raise DataError(f"has more than {MOST_BYTES >> 20} MB")
    if isinstance(data, bytes):
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        try:
            data = data.decode("utf-16" if wide else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise ElementTree.ParseError(f"not UTF-8, byte {error.start}") from None
    return parse_xml(data.strip("\0 \r\n\t"))


def xmp_keywords(packet: bytes | str) -> list[Keyword]:
    """The keywords of an XMP packet, from all fields that photo managers write; errors as in
    `parse_packet`.

    A list may be a Bag, a Seq or an Alt; one keyword may also be the field's text or an attribute.
    """
    root = parse_packet(packet)
    keywords: list[Keyword] = []
    for rdf in root.iter(f"{RDF}RDF"):
        # Not those deeper inside: they belong to pictures from which this one was made.
        for node in rdf:
            for name, text in node.attrib.items():
                keywords += _keywords(name, [text])
            for field in node:
                items = field.findall(f"*/{RDF}li")
                texts = [item.findtext(f".//{RDF}value") or item.text for item in items]
                keywords += _keywords(field.tag, texts if items else [field.text])
    return list(dict.fromkeys(keywords))


def levels(text: str, separator: str = "|") -> Keyword:
    """ "Animals|Dog" to ("Animals", "Dog")."""
    parts = text.split(separator, MOST_LEVELS)[:MOST_LEVELS]
    return tuple(level for part in parts if (level := clean_tag(part)))


def _keywords(name: str, texts: list[str | None]) -> Iterator[Keyword]:
    """The keywords in a field; none if its name is of another field."""
    name = name.replace("/}", "}")
    for text in filter(None, texts):
        if name in FIELDS:
            if keyword := levels(text, FIELDS[name]):
                yield keyword
        elif name == f"{ACDSEE}categories":
            yield from _categories(text)


def _categories(text: str) -> Iterator[Keyword]:
    """ACDSee's categories, which are XML in a text: those with Assigned="1"."""
    nodes: list[tuple[Element, Keyword]] = [(node, ()) for node in parse_packet(text)]
    for node, above in nodes:  # it grows: trees may be too deep for a function that calls itself
        keyword = (*above, clean_tag(node.text or ""))[:MOST_LEVELS]
        if node.attrib.get("Assigned") != "0" and keyword[-1]:
            yield keyword
        nodes += [(child, keyword) for child in node]
