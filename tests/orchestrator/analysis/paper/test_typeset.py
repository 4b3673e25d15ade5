from __future__ import annotations

import re

from orchestrator.analysis.paper.printed import printed_parameters, printed_scores
from orchestrator.analysis.paper.typeset import Cell, PrintedTable, latex, latex_text, markdown, markdown_text
from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows

NASTY = r"a\b&c%d$e#f_g{h}i~j^k<l>m|n*o`p[q]"


def test_no_special_character_of_latex_is_left_bare() -> None:
    text = latex_text(NASTY)
    bare = re.sub(r"\\text(backslash|asciitilde|asciicircum|less|greater)\{\}|\\[&%$#_{}]", "", text)
    assert not set(bare) & set(r"\&%$#_{}~^<>"), bare
    assert latex_text("1.0 \N{PLUS-MINUS SIGN} 0.1 \N{MINUS SIGN}2 3\N{MULTIPLICATION SIGN}") == (
        r"1.0 $\pm$ 0.1 $-$2 3$\times$"
    )


def test_neither_a_new_line_nor_a_control_character_gets_through() -> None:
    assert latex_text("a\nb\x1b[2J") == r"a b\textbackslash{}x1b[2J"
    assert "\n" not in markdown_text("a\n| b |")


def test_no_special_character_of_markdown_is_left_bare() -> None:
    assert not re.search(r"(?<!\\)[`*_{}\[\]<>#|~&$]", markdown_text(NASTY).replace("\\\\", ""))


def test_a_row_is_no_argument_of_the_line_before_it() -> None:
    """LaTeX looks past the end of a line for the bracket or the star that a line end or a rule may have."""
    names = ("[2pt] spam", "*starred", "plain [x]")
    rows = tuple((Cell(text=name), Cell(text="1")) for name in names)
    lines = latex(PrintedTable(label="t", caption="c", head=("", "x"), groups=(rows,))).splitlines()
    assert [line.partition(" & ")[0] for line in lines if " & 1" in line] == [
        "{}[2pt] spam",
        "{}*starred",
        "plain [x]",
    ]


def test_letters_that_pdflatex_does_not_have_are_said() -> None:
    table = PrintedTable(
        label="t", caption="c", head=("", "x"), groups=(((Cell(text="é \N{EN DASH} ±"), Cell(text="1")),),)
    )
    other = PrintedTable(label="t", caption="c", head=("", "\u65e5"), groups=table.groups)
    assert "LuaLaTeX" not in latex(table)
    assert "LuaLaTeX" in latex(other)


def test_a_table_has_as_many_cells_in_every_row_and_its_rules() -> None:
    table = PrintedTable(
        label="t", caption="A_caption", head=("", "x & y", "z"),
        groups=(
            ((Cell(text="a"), Cell(text="1"), Cell(text="2", is_bold=True)),),
            ((Cell(text="b"), Cell(text="3"), Cell(text="4")),),
        ),
        notes=("lora on t_1",),
    )  # fmt: skip
    text = latex(table)
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 2 for row in rows)
    assert r"\textbf{2}" in text
    fitted = re.search(
        r"\\resizebox\{.*\}\{!\}\{%\n(.*?)\n\}\n\\end\{table\}", text, re.DOTALL
    )  # no wider than the text
    assert fitted is not None
    assert fitted[1].startswith(r"\begin{tabular}")
    assert fitted[1].endswith(r"\end{tabular}")
    assert r"\caption{A\_caption Missing: lora on t\_1.}" in text
    marked = markdown(table).splitlines()
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in marked if line.startswith("|"))
    assert "- Missing: lora on t\\_1" in marked


def test_table_2_prints_points_the_best_in_bold_the_averages_and_the_costs() -> None:
    results = large_results(large_rows(TASKS[:4], ("adapter", "full_finetuning")))
    table = printed_scores(results.score_table(), results.parameter_table())
    assert table.head == ("", "adapter", "full finetuning")
    rows = {row[0].text: row for row in table.rows()}
    assert set(rows) == {
        "glue/cola (accuracy)", "glue/mrpc (accuracy)", "glue/sst2 (accuracy)", "glue/stsb (pearson)",
        "Average (4 tasks)", "Total parameters", "Trained per task",
    }  # fmt: skip
    first = next(row for row in results.score_table().to_pylist() if row["task"] == "glue/cola")
    shown = rows["glue/cola (accuracy)"][1]
    assert shown.text == f"{100 * first['score']:.1f} \N{PLUS-MINUS SIGN} {100 * first['score_sem']:.1f}"
    assert shown.is_bold == first["is_best"]
    assert rows["Total parameters"][2].text == "4.0\N{MULTIPLICATION SIGN}"
    assert rows["Trained per task"][2].text == "100 %"
    assert "3 seeds" in table.caption


def test_errors_are_not_points() -> None:
    rows = [
        {**row, "validation_score": 40 * row["validation_score"], "test_score": 40 * row["test_score"]}
        for row in large_rows(TASKS[:1], ("adapter",))
    ]
    results = large_results(rows)
    table = printed_scores(results.score_table(), results.parameter_table())
    assert "points" not in table.caption
    (cell,) = next(table.rows())[1:]
    assert float(cell.text.split()[0]) > 10


def test_many_headings_are_turned() -> None:
    results = large_results(large_rows(TASKS, ("adapter",)))
    text = latex(printed_parameters(results.parameter_table()))
    assert text.count(r"\rotatebox{90}") == 3 + len(TASKS) + 1
    assert r"data/tickets \& mails\_100\%" in text
