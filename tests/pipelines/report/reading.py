"""A page as a strict reader sees it: every tag closed in its turn, headings in order, texts and attributes."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "line", "polygon", "polyline"}


class Page(HTMLParser):
    """Errors: ``AssertionError`` for a tag closed out of turn, or never."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    @property
    def text(self) -> str:
        """What is read, with every space one and the same."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        """Attributes of every ``tag``, of a class if one is named."""
        found = [attributes for name, attributes in self.tags if name == tag]
        return [a for a in found if kind is None or kind in (a.get("class") or "").split()]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} is given twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} closed, never opened"
        assert self.open.pop() == tag, f"{tag} closed out of turn"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
