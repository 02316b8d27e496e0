"""The words in pictures and on the report, in English and in Portuguese; numbers and dates as each writes them.

Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import date

Language = Literal["en", "pt"]
NONE = "\N{EN DASH}"

MONTHS: dict[Language, tuple[str, ...]] = {
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    "pt": ("jan", "fev", "mar", "abr", "mai", "jun", "jul", "ago", "set", "out", "nov", "dez"),
}
METRICS: dict[str, tuple[str, str]] = {
    "roc_auc": ("ROC AUC", "ROC AUC"),
    "average_precision": ("average precision", "precisão média"),
    "accuracy": ("accuracy", "acurácia"),
    "precision": ("precision", "precisão"),
    "recall": ("recall", "revocação"),
    "f1": ("F1", "F1"),
    "log_loss": ("log loss", "log loss"),
    "brier": ("Brier score", "escore de Brier"),
    "calibration": ("calibration error", "erro de calibração"),
    "bias": ("bias (predicted \N{MINUS SIGN} real)", "viés (previsto \N{MINUS SIGN} real)"),
    "mae": ("mean absolute error", "erro absoluto médio"),
    "rmse": ("root mean squared error", "raiz do erro quadrático médio"),
    "r2": ("R²", "R²"),
    "objective": ("objective, per day", "objetivo, por dia"),
    "objective_per_row": ("objective, per row", "objetivo, por linha"),
    "effect": ("effect of the system", "efeito do sistema"),
    "label_coverage": ("outcomes known", "desfechos conhecidos"),
    "rows": ("rows per day", "linhas por dia"),
    "late_rows": ("late rows per day", "linhas atrasadas por dia"),
    "mean_score": ("mean score", "escore médio"),
    "rejected_share": ("rows set aside", "linhas rejeitadas"),
    "jensen_shannon": ("Jensen-Shannon distance", "distância de Jensen-Shannon"),
    "drift": ("drift over its limit", "deriva sobre o limite"),
    "null_share": ("missing", "ausentes"),
    "unseen_share": ("unseen values", "valores inéditos"),
}
TEXTS: dict[str, tuple[str, str]] = {
    "now_against": (
        "{what}: {value} in the last 7 judged days, {mean} in the reference",
        "{what}: {value} nos últimos 7 dias avaliados, {mean} na referência",
    ),
    "now": ("{what}: {value} in the last 7 judged days", "{what}: {value} nos últimos 7 dias avaliados"),
    "nothing": ("{what}: no day could be judged", "{what}: nenhum dia pôde ser avaliado"),
    "days_line": ("mean of 7 days", "média de 7 dias"),
    "day_dots": ("a day, with its 95\u00a0% interval", "um dia, com intervalo de 95\u00a0%"),
    "provisional_dots": ("provisional: outcomes still arriving", "provisório: desfechos ainda chegando"),
    "estimate": ("estimate made before outcomes", "estimativa feita antes dos desfechos"),
    "band": ("reference ± what a week must change to be found", "referência ± mudança que uma semana revela"),
    "reference": ("reference", "referência"),
    "incident": ("incident open", "incidente aberto"),
    "no_data": ("No figures in this period", "Sem números neste período"),
    "heat_none": (
        "Inputs: every column stayed within what reference days reach",
        "Entradas: todas as colunas dentro do que os dias da referência alcançam",
    ),
    "heat_some": (
        "Inputs: {names} beyond their limit in the last 7 days",
        "Entradas: {names} além do limite nos últimos 7 dias",
    ),
    "heat_one": (
        "Inputs: {names} beyond its limit in the last 7 days",
        "Entradas: {names} além do limite nos últimos 7 dias",
    ),
    "heat_sub": (
        "Distance from the reference, over what its own days reach; most important column first",
        "Distância da referência, sobre o que os dias dela alcançam; coluna mais importante primeiro",
    ),
    "heat_weeks": ("; a cell is the worst day of a week", "; cada célula é o pior dia de uma semana"),
    "heat_more": ("; {count} more columns are in the table", "; mais {count} colunas estão na tabela"),
    "and_more": ("{names} and {count} more", "{names} e mais {count}"),
    "not_judged": ("not judged", "sem avaliação"),
    "score": ("score", "escore"),
    "scores_title": (
        "Scores: mean {now} in the last 28 days, {mean} in the reference",
        "Escores: média {now} nos últimos 28 dias, {mean} na referência",
    ),
    "scores_plain": ("Scores of the last 28 days", "Escores dos últimos 28 dias"),
    "scores_class": ("Scores for {label}", "Escores de {label}"),
    "share_of_rows": ("share of rows", "parcela das linhas"),
    "density": ("share of rows per unit", "parcela das linhas por unidade"),
    "last_28": ("last 28 days", "últimos 28 dias"),
    "before_28": ("28 days before", "28 dias anteriores"),
    "calibration_high": ("Calibration: predicts {gap} points too much", "Calibração: prevê {gap} pontos a mais"),
    "calibration_low": ("Calibration: predicts {gap} points too little", "Calibração: prevê {gap} pontos a menos"),
    "calibration_fine": ("Calibration: what is predicted comes true", "Calibração: o previsto se realiza"),
    "calibration_sub": (
        "On the dotted line a score of 30\u00a0% comes true in three of ten. Bars: labelled rows",
        "Na linha pontilhada, 30\u00a0% se confirma em três de dez. Barras: linhas com desfecho",
    ),
    "calibration_pooled": (
        "Each class against the others, together. Bars: labelled rows",
        "Cada classe contra as outras, em conjunto. Barras: linhas com desfecho",
    ),
    "calibration_word": ("Calibration", "Calibração"),
    "predicted": ("predicted", "previsto"),
    "came_true": ("came true", "confirmado"),
    "labelled": ("rows", "linhas"),
    "volume_title": (
        "Rows: {rows} in a usual run, {rejected} set aside in all",
        "Linhas: {rows} numa execução usual, {rejected} rejeitadas ao todo",
    ),
    "volume_sub": ("Per window of the job", "Por janela do job"),
    "scored": ("scored", "pontuadas"),
    "set_aside": ("set aside", "rejeitadas"),
    "failed_runs": ("failed, nothing written", "falhou, nada escrito"),
    "least": ("least of this weekday in the reference", "mínimo desse dia da semana na referência"),
    "rows_axis": ("rows", "linhas"),
    "segments_title": ("Segments: {what} is worst for {name}", "Segmentos: {what} é pior para {name}"),
    "segments_none": ("Segments: too few outcomes to judge any", "Segmentos: desfechos insuficientes para avaliar"),
    "segments_sub": (
        "The worst three against all rows; bars: 95\u00a0% interval",
        "Os três piores contra todas as linhas; barras: intervalo de 95\u00a0%",
    ),
    "all_rows": ("all rows", "todas as linhas"),
}


def say(key: str, language: Language, **values: object) -> str:
    """Return a text in the language, with the values in their places. Raises KeyError for a text that is not there."""
    return TEXTS[key][language == "pt"].format(**values)


def metric_name(name: str, language: Language) -> str:
    """Return a metric as people call it; one that is not known by its own name, with spaces."""
    prefix = {"en": "estimated ", "pt": "estimativa: "}[language] if name.startswith("estimated_") else ""
    name = name.removeprefix("estimated_")
    for suffix, words in ARMS.items():
        if name.endswith(suffix):
            return f"{metric_name(name.removesuffix(suffix), language)}, {words[language == 'pt']}"
    return prefix + (METRICS[name][language == "pt"] if name in METRICS else name.replace("_", " "))


def incident_word(word: str, language: Language) -> str:
    """Return the one word of an incident as people read it."""
    return {"en": {}, "pt": INCIDENTS}[language].get(word, word)


INCIDENTS = {
    "broken": "quebrado",
    "degraded": "degradado",
    "watch": "em observação",
    "drifting": "em deriva",
    "improved": "melhor",
    "missing": "sem evidência",
}
ARMS = {
    "_control": ("control group", "grupo de controle"),
    "_treated": ("treated", "tratados"),
    "_weighted": ("weighted over both", "ponderado sobre ambos"),
}


def number(value: float | None, language: Language, digits: int = 3) -> str:
    """Return a number with about so many significant digits, a dash for none or one that is not finite."""
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size >= 1000 or (value == int(value) and size < 1000):
        shown = f"{value:,.0f}"
    else:
        places = digits if size == 0 else max(0, digits - 1 - math.floor(math.log10(size)))
        shown = f"{value:.{min(places, 3 if size >= 0.01 else 4)}f}"
    shown = shown.replace("-", "\N{MINUS SIGN}")  # the hyphen is a shorter stroke
    return shown.translate(str.maketrans(",.", ".,")) if language == "pt" else shown


def percent(value: float | None, language: Language) -> str:
    """Return a share as per cent."""
    return NONE if value is None or not math.isfinite(value) else f"{number(100 * value, language, 2)}\u00a0%"


def day(when: date, language: Language, *, year: bool = False) -> str:
    """Return a day as it is written in a sentence."""
    shown = f"{when.day} {MONTHS[language][when.month - 1]}"
    return f"{shown} {when.year}" if year else shown
