"""A page of sections, as HTML that opens offline and prints, and as Markdown: what a report and a model card are."""

from dataclasses import dataclass

TEMPLATE = "report.html"


@dataclass(frozen=True)
class Table:
    """Cells as text; `numbers` are the columns to align right; tone of a row: "", pass, fail or warn."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    tones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """svg: trusted, made here from numbers and escaped names."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Code:
    text: str


Block = str | Table | Chart | Code


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """kind: "report" or "model card". about: short facts under the title. lead: the one sentence that counts, with its
    tone: pass, fail or warn."""

    title: str
    kind: str
    about: tuple[str, ...]
    lead: str
    tone: str
    sections: tuple[Section, ...]


def html(page: Page) -> str:
    """The whole page. Everything from outside is escaped by the template."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fairway.path"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    names = {Table: "table", Chart: "chart", Code: "code", str: "text"}
    environment.tests["block"] = lambda block, name: names[type(block)] == name
    return environment.get_template(TEMPLATE).render(page=page)


def markdown(page: Page) -> str:
    """The same sections for a pull request; charts become their note."""
    out = (
        [f"# fairway: {cell(page.title)}", ""] if page.kind == "report" else [f"# {cell(page.title)}: {page.kind}", ""]
    )
    out += [f"**{cell(page.lead)}**", ""]
    for section in page.sections:
        out += [f"## {section.title}", ""]
        for block in section.blocks:
            if isinstance(block, Table):
                out += ["| " + " | ".join(map(cell, block.head)) + " |"]
                out += ["|" + "|".join("--:" if i in block.numbers else "---" for i in range(len(block.head))) + "|"]
                out += ["| " + " | ".join(map(cell, row)) + " |" for row in block.rows]
            elif isinstance(block, Chart):
                out.append(f"{block.title}: {cell(block.note)}")
            elif isinstance(block, Code):
                out += [(fence := _fence(block.text)), block.text, fence]
            else:
                out.append(cell(block))
            out.append("")
    return "\n".join(out)


def _fence(text: str) -> str:
    """Longer than any row of backticks in the text, which could else end the block."""
    longest, run = 0, 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return "`" * max(4, longest + 1)


def cell(text: str) -> str:
    """Text that Markdown shows as it is."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")
