"""The words of messages, in English and Portuguese. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

Language: TypeAlias = Literal["en", "pt"]

TITLES: Final[dict[str, tuple[str, str]]] = {
    "failed": ("Runs failed", "Execuções falharam"),
    "retrying": ("Runs failed and are tried again", "Execuções falharam e são repetidas"),
    "recovered": ("Runs work again", "Execuções voltaram a funcionar"),
    "healed": ("Runs healed by themselves", "Execuções se recuperaram sozinhas"),
    "blocked": ("A check stopped a run", "Uma verificação parou uma execução"),
    "too_many_rejected": ("Too many rows were set aside", "Linhas demais foram separadas"),
    "rejected_rows": ("Rows were set aside", "Linhas foram separadas"),
    "nothing_scored": ("A new window had no row to score", "Uma janela nova não tinha linha a pontuar"),
    "model_refused": ("The model was refused", "O modelo foi recusado"),
    "source_changed": ("The source has changed", "A origem mudou"),
    "break": ("The data broke a check", "Os dados quebraram uma verificação"),
    "break_recovered": ("The data pass their checks again", "Os dados passam de novo nas verificações"),
    "degraded": ("The model has degraded", "O modelo degradou"),
    "degraded_recovered": ("A degradation is over", "Uma degradação terminou"),
    "slightly_worse": ("The model is slightly worse", "O modelo está um pouco pior"),
    "improved": ("The model is better than its reference", "O modelo está melhor que a referência"),
    "drift": ("The data have drifted", "Os dados mudaram de distribuição"),
    "drift_recovered": ("The data are as they were", "Os dados voltaram a ser o que eram"),
    "missing": ("Evidence is missing", "Faltam evidências"),
    "missing_recovered": ("The evidence is there again", "As evidências voltaram"),
    "integrity": ("Predictions and source disagree", "As predições e a origem divergem"),
    "integrity_recovered": ("Predictions and source agree again", "As predições e a origem concordam de novo"),
    "late": ("Predictions are late", "As predições estão atrasadas"),
    "late_recovered": ("Predictions are complete again", "As predições estão completas de novo"),
    "watch": ("The watchdog has found something", "O vigia encontrou algo"),
    "watch_recovered": ("What the watchdog found is over", "O que o vigia encontrou acabou"),
    "delivery": ("Alerts could not be delivered", "Alertas não puderam ser entregues"),
    "delivery_recovered": ("Alerts are delivered again", "Alertas são entregues de novo"),
    "import_error": ("Airflow cannot read a DAG file", "O Airflow não consegue ler um arquivo de DAG"),
    "broken_file": ("A job file has mistakes", "Um arquivo de job tem erros"),
    "challenger_failed": ("A challenger failed", "Um desafiante falhou"),
    "promotion_forced": ("A version was promoted against the gate", "Uma versão foi promovida contra o portão"),
    "reminder": ("Still open", "Ainda em aberto"),
    "test": ("A test of the alert path", "Um teste do caminho dos alertas"),
}

SENTENCES: Final[dict[str, tuple[str, str]]] = {
    "digest": (
        "Hey, this is your {period} notification digest for *{job}*.",
        "Oi, este é o seu resumo {period} de notificações de *{job}*.",
    ),
    "page": ("Hey, *{job}* has something to tell you now.", "Oi, *{job}* tem algo a dizer agora."),
    "good": ("Hey, good news from *{job}*.", "Oi, boas notícias de *{job}*."),
    "total_1": ("There is a total of 1 notification", "Há um total de 1 notificação"),
    "total": ("There are a total of {count} notifications", "Há um total de {count} notificações"),
    "triggered_1": ("triggered 1 time", "disparada 1 vez"),
    "triggered": ("triggered {count} times", "disparada {count} vezes"),
    "another_1": (
        "Another 1 notification was triggered in this interval",
        "Outra 1 notificação foi disparada neste intervalo",
    ),
    "another": (
        "Another {count} notifications were triggered in this interval",
        "Outras {count} notificações foram disparadas neste intervalo",
    ),
    "told": (", and told in its {period} digests", ", e contadas nos resumos {period}"),
    "since": ("since {moment}", "desde {moment}"),
    "first": ("for the first time", "pela primeira vez"),
    "repeated_1": ("repeated: 1 time before", "repetida: 1 vez antes"),
    "repeated": ("repeated: {count} times before", "repetida: {count} vezes antes"),
    "by_itself": ("it is tried again by itself", "é repetida sozinha"),
    "not_by_itself": ("it is not tried again by itself", "não é repetida sozinha"),
    "closes": ("it closes by itself when it no longer holds", "fecha sozinha quando não valer mais"),
    "more_1": ("and 1 more of this type", "e mais 1 deste tipo"),
    "more": ("and {count} more of this type", "e mais {count} deste tipo"),
    "times": ("({count} times)", "({count} vezes)"),
    "cut": ("… ({count} more characters)", "… (mais {count} caracteres)"),
    "next": ("Next: {step}", "A seguir: {step}"),
    "run": ("Airflow run", "Execução no Airflow"),
    "schedule": ("runs {schedule}", "execução {schedule}"),
    "message": ("message {number}", "mensagem {number}"),
    "list": ("all of it: plantao alerts list {job}", "tudo: plantao alerts list {job}"),
    "repeat": (
        ":warning: This may repeat message {number}, whose acknowledgement was lost.",
        ":warning: Esta pode repetir a mensagem {number}, cuja confirmação se perdeu.",
    ),
    "runs_1": ("1 run", "1 execução"),
    "runs": ("{count} runs", "{count} execuções"),
    "complete": ("all windows complete", "todas as janelas completas"),
    "owed": ("time that no run covers: {owed}", "tempo que nenhuma execução cobre: {owed}"),
    "open_1": ("1 incident is open: {listed}", "1 incidente em aberto: {listed}"),
    "open": ("{count} incidents are open: {listed}", "{count} incidentes em aberto: {listed}"),
    "picture": ("{job} over time", "{job} ao longo do tempo"),
    "plantao": ("Plantão itself", "o próprio Plantão"),
}
PERIODS: Final[dict[str, tuple[str, str]]] = {
    "minutely": ("MINUTELY", "POR MINUTO"),
    "hourly": ("HOURLY", "POR HORA"),
    "daily": ("DAILY", "DIÁRIO"),
}


def title(kind: str, language: Language) -> str:
    """Return the title of a type of notification; one that is not known is its own name."""
    known = TITLES.get(kind)
    return known[language == "pt"] if known else kind.replace("_", " ").capitalize()


def period(name: str, language: Language) -> str:
    """Return the name of a digest's period, in capitals as in a greeting."""
    return PERIODS[name][language == "pt"]


def say(name: str, language: Language, **values: object) -> str:
    """Return a sentence; with a `count` of one, in its singular where there is one."""
    if values.get("count") == 1 and f"{name}_1" in SENTENCES:
        name = f"{name}_1"
    return SENTENCES[name][language == "pt"].format(**values)


QUOTED = re.compile(r"(?<!\w)'([^'\n]{1,500})'(?!\w)|\"([^\"\n]{1,500})\"")
# What a message calls a column is the name of one, and no value of a row.
COLUMNS = re.compile(r"\bcolumns? ('[^'\n]{1,100}'(?:(?:, | or | and )'[^'\n]{1,100}')*)")


def escape(text: str) -> str:
    """Return text that Slack takes as text: no mention, no link and no mark-up of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def redacted(text: str, names: frozenset[str]) -> str:
    """Return text without values that it quotes, and without mail addresses; names of columns, and `names`, stay."""
    names |= {name for found in COLUMNS.findall(text) for name in re.findall(r"'([^']+)'", found)}
    text = re.sub(r"[\w.+-]+@[\w-]+\.[\w.]+", "…", text)
    return QUOTED.sub(
        lambda found: found[0] if (found[1] or found[2]) in names else f"{found[0][0]}…{found[0][0]}", text
    )


def masked(text: str) -> str:
    """Return text without secrets, whatever the settings: tokens, passwords in addresses, webhooks."""
    text = re.sub(r"xox[a-z]-[\w-]+", "***", text)
    text = re.sub(r"(hooks\.slack\.com/services/)\S+", r"\1***", text)
    text = re.sub(r"(://[^\s:/@]*:)[^\s/]+@", r"\1***@", text)
    return re.sub(r"(?i)\b(password|passwd|secret|token)(\s*[=:]\s*)\S+", r"\1\2***", text)
