"""A table as LaTeX, with the rules of booktabs, and as Markdown. What others have named is escaped in both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.analysis.text.visible import one_line

_MOST_UPRIGHT = 6  # columns whose headings are not turned
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
}
_NO_WIDER_THAN_TEXT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
# What begins a row so is read as an argument of the line end or rule before it.
_OF_THE_LINE_BEFORE = ("[", "*")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


@dataclass(frozen=True, kw_only=True)
class Cell:
    text: str
    is_bold: bool = False


@dataclass(frozen=True, kw_only=True)
class PrintedTable:
    """A table as a paper prints it. The first column has names, the others numbers."""

    label: str
    caption: str
    head: tuple[str, ...]
    groups: tuple[tuple[tuple[Cell, ...], ...], ...]  # rows, in groups with a rule between them
    notes: tuple[str, ...] = ()

    def rows(self) -> Iterator[tuple[Cell, ...]]:
        for group in self.groups:
            yield from group


def latex_text(text: str) -> str:
    """Any text as LaTeX that prints it; line ends become spaces."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def markdown_text(text: str) -> str:
    """Any text as Markdown that shows it, on one line."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def latex(table: PrintedTable) -> str:
    """A floating table, made smaller where it is wider than the text; it needs the packages booktabs and graphicx."""
    is_turned = len(table.head) - 1 > _MOST_UPRIGHT
    heads = [latex_text(name) for name in table.head]
    if is_turned:
        heads = [heads[0], *(rf"\rotatebox{{90}}{{{head}}}" for head in heads[1:])]
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
        *(["% has letters for which pdfLaTeX needs more; LuaLaTeX and XeLaTeX take them"] if _is_beyond(table) else []),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(_with_notes(table))}}}",
        rf"\label{{tab:{table.label}}}",
        _NO_WIDER_THAN_TEXT,
        rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"\toprule",
        f"{' & '.join(heads)} \\\\",
    ]
    for group in table.groups:
        lines.append(r"\midrule")
        lines += [_latex_row(row) for row in group]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", "}", r"\end{table}", ""])


def markdown(table: PrintedTable) -> str:
    """As GitHub's Markdown has it, the caption above and what is missing below."""
    lines = [markdown_text(table.caption), "", _markdown_row(markdown_text(name) for name in table.head)]
    lines.append(_markdown_row(("---", *("---:" for _ in table.head[1:]))))
    lines += [_markdown_row(_markdown_cell(cell) for cell in row) for row in table.rows()]
    if table.notes:
        lines += ["", *(f"- Missing: {markdown_text(note)}" for note in table.notes)]
    return "\n".join([*lines, ""])


def _with_notes(table: PrintedTable) -> str:
    return " ".join([table.caption, *([f"Missing: {'; '.join(table.notes)}."] if table.notes else [])])


def _is_beyond(table: PrintedTable) -> bool:
    """Whether it has letters that are not of the Latin alphabet."""
    texts = [*table.head, _with_notes(table), *(cell.text for row in table.rows() for cell in row)]
    return any(character > "\u024f" and character not in _LATEX for text in texts for character in text)


def _latex_row(row: Sequence[Cell]) -> str:
    cells = " & ".join(map(_latex_cell, row))
    return f"{'{}' if cells.startswith(_OF_THE_LINE_BEFORE) else ''}{cells} \\\\"


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    return rf"\textbf{{{text}}}" if cell.is_bold else text


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    return f"**{text}**" if cell.is_bold else text


def _markdown_row(cells: Sequence[str] | Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"
