"""The sentences of the report, in English and in Portuguese.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plantao.report.chart.words import Language

TEXTS: dict[str, tuple[str, str]] = {
    # --- the headline ---
    "fine": ("Fine", "Tudo bem"),
    "watch": ("Watch", "Em observação"),
    "degraded": ("Degraded", "Degradado"),
    "broken": ("Broken", "Quebrado"),
    "missing": ("Not enough evidence", "Evidência insuficiente"),
    "since": ("{word} since {day}", "{word} desde {day}"),
    "value_now": (
        "{what} is {value} over the last 7 judged days; in the reference it was {mean}.",
        "{what} é {value} nos últimos 7 dias avaliados; na referência era {mean}.",
    ),
    "value_only": ("{what} is {value} over the last 7 judged days.", "{what} é {value} nos últimos 7 dias avaliados."),
    "worst_for": ("Worst for {names}.", "Pior para {names}."),
    "for_all": (
        "It concerns all rows alike, as far as the segments tell.",
        "Afeta todas as linhas por igual, até onde os segmentos mostram.",
    ),
    "only_for": ("It is about {names}.", "Trata-se de {names}."),
    "none_open": ("No incident is open.", "Nenhum incidente aberto."),
    "one_open": ("One incident is open.", "Um incidente aberto."),
    "some_open": ("{count} incidents are open.", "{count} incidentes abertos."),
    "inputs_drift": (
        "Inputs drift ({names}), which alone is no alarm.",
        "Há deriva nas entradas ({names}), o que por si só não é alarme.",
    ),
    "no_outcome": (
        "No outcome was measured in this period, so only rows and inputs are watched.",
        "Nenhum desfecho foi medido neste período; só linhas e entradas são vigiadas.",
    ),
    "not_judged_since": (
        "No day of {what} could be judged after {day}.",
        "Nenhum dia de {what} pôde ser avaliado após {day}.",
    ),
    "never_judged": ("No day of {what} could be judged.", "Nenhum dia de {what} pôde ser avaliado."),
    "few_days": (
        "No statistical alarm: the reference has {count} measured days, and 30 are needed.",
        "Sem alarme estatístico: a referência tem {count} dias medidos, e são necessários 30.",
    ),
    # --- headings ---
    "report_of": ("{job}: how the model is doing", "{job}: como vai o modelo"),
    "period": ("{first} to {last}", "{first} a {last}"),
    "version": ("{model} version {version}", "{model} versão {version}"),
    "figures": ("Figures", "Números"),
    "figures_note": (
        (
            "Value: mean of the last 7 judged days, with its 95 % interval. Status: that of the newest day whose "
            "outcomes have arrived, and below it how many days of the period could not be judged."
        ),
        (
            "Valor: média dos últimos 7 dias avaliados, com intervalo de 95 %. Situação: a do dia mais novo "
            "cujos desfechos chegaram e, abaixo, quantos dias do período não puderam ser avaliados."
        ),
    ),
    "estimates_high": (
        "Past estimates of {what}: {bias} too high on average, off by {error} either way (last 28 days with both).",
        "Estimativas passadas de {what}: {bias} a mais em média, erro de {error} para um lado ou outro (28 dias).",
    ),
    "estimates_low": (
        "Past estimates of {what}: {bias} too low on average, off by {error} either way (last 28 days with both).",
        "Estimativas passadas de {what}: {bias} a menos em média, erro de {error} para um lado ou outro (28 dias).",
    ),
    "arrival": ("When outcomes arrive", "Quando os desfechos chegam"),
    "arrival_note": (
        (
            "Counted from the row's own time, over the days of this period. A day is judged from {after} after its "
            "end on, and not before the outcomes of {share} of its rows are known."
        ),
        (
            "Contado a partir do tempo da própria linha, nos dias deste período. Um dia é avaliado a partir de "
            "{after} após o seu fim, e não antes de se conhecerem os desfechos de {share} das suas linhas."
        ),
    ),
    "arrival_enough": ("As a rule so many are known within {days}.", "Em regra conhecem-se tantos em até {days}."),
    "arrival_never": (
        "As a rule so many never arrive: see whether mature_at fits.",
        "Em regra nunca chegam tantos: veja se mature_at é adequado.",
    ),
    "incidents": ("Incidents", "Incidentes"),
    "no_incidents": ("None in this period.", "Nenhum neste período."),
    "open_now": ("Open", "Abertos"),
    "closed_now": ("Closed", "Encerrados"),
    "segments": ("For whom", "Para quem"),
    "segments_few": (
        "Not judged, with fewer than 100 outcomes in 28 days: {names}.",
        "Sem avaliação, com menos de 100 desfechos em 28 dias: {names}.",
    ),
    "effect": ("The system's own effect", "O efeito do próprio sistema"),
    "effect_note": (
        (
            "A control group ({share} of the keys) shows what happens without the system's action. Weighted: both"
            " together, each row by one over its chance to be seen. Mean of the last 28 judged days."
        ),
        (
            "Um grupo de controle ({share} das chaves) mostra o que ocorre sem a ação do sistema. Ponderado: "
            "ambos juntos, cada linha pelo inverso da sua chance de ser vista. Média dos últimos 28 dias "
            "avaliados."
        ),
    ),
    "unjudged": ("Checks that could not be made", "Verificações que não puderam ser feitas"),
    "unjudged_note": (
        "Of the runs of this period. What could not be checked is not known to be good.",
        "Das execuções deste período. O que não pôde ser verificado não é sabidamente bom.",
    ),
    "check": ("check", "verificação"),
    "days": ("days", "dias"),
    "all_columns": ("all columns", "todas as colunas"),
    "columns": ("Inputs, column by column", "Entradas, coluna por coluna"),
    "columns_note": (
        (
            "The last 7 days. Drift: the largest distance of a day over its limit; more than 1 is beyond what the"
            " reference's own days reach. Most important column first."
        ),
        (
            "Últimos 7 dias. Deriva: a maior distância de um dia sobre o limite; acima de 1 passa do que os dias "
            "da referência alcançam. Coluna mais importante primeiro."
        ),
    ),
    "versions": ("Versions", "Versões"),
    "meaning": ("What the figures mean", "O que os números significam"),
    # --- cells ---
    "outcomes": ("outcomes of", "desfechos de"),
    "median": ("median", "mediana"),
    "ninety": ("90 % of them", "90 % deles"),
    "slowest": ("slowest", "mais lento"),
    "after": ("known after {days}", "conhecidos após {days}"),
    "within": ("within {days}", "em até {days}"),
    "one_day": ("1 day", "1 dia"),
    "some_days": ("{count} days", "{count} dias"),
    "hours": ("{count} hours", "{count} horas"),
    "metric": ("metric", "métrica"),
    "value": ("value", "valor"),
    "interval": ("95 % interval", "intervalo de 95 %"),
    "n": ("rows", "linhas"),
    "maturity": ("outcomes known", "desfechos conhecidos"),
    "status": ("status", "situação"),
    "mean": ("reference", "referência"),
    "detectable": ("detectable in a week", "detectável em uma semana"),
    "segment": ("segment", "segmento"),
    "before": ("28 days before", "28 dias antes"),
    "last_28": ("last 28 days", "últimos 28 dias"),
    "labels": ("outcomes", "desfechos"),
    "change": ("change", "mudança"),
    "control": ("control", "controle"),
    "treated": ("treated", "tratados"),
    "weighted": ("weighted", "ponderado"),
    "difference": ("treated \N{MINUS SIGN} control", "tratados \N{MINUS SIGN} controle"),
    "outcome": ("Outcome", "Desfecho"),
    "column": ("column", "coluna"),
    "missing_now": ("missing", "ausentes"),
    "missing_then": ("missing in reference", "ausentes na referência"),
    "unseen": ("unseen values", "valores inéditos"),
    "outside": ("outside its range", "fora da faixa"),
    "by_chance": ("by chance {value}", "por acaso {value}"),
    "drift": ("drift over limit", "deriva sobre limite"),
    "beyond": ("days beyond limit", "dias além do limite"),
    "jensen_shannon": ("Jensen-Shannon", "Jensen-Shannon"),
    "score": ("score", "escore"),
    "all_rows": ("all rows", "todas as linhas"),
    "days_not_judged": ("{count} days {status}", "{count} dias: {status}"),
    "one_not_judged": ("1 day {status}", "1 dia: {status}"),
    "too_few": ("not enough outcomes", "desfechos insuficientes"),
    "until": ("{first} to {last}", "{first} a {last}"),
    "from_on": ("since {first}", "desde {first}"),
    # --- statuses ---
    "ok": ("ok", "ok"),
    "not_enough": ("not enough", "insuficiente"),
    "undefined": ("undefined", "indefinido"),
    "failed": ("failed", "falhou"),
    "no_rows": ("no rows", "sem linhas"),
    "no_labels": ("no outcomes yet", "sem desfechos ainda"),
    "provisional": ("provisional", "provisório"),
    # --- lanes ---
    "lane_break": ("data", "dados"),
    "lane_degraded": ("performance", "desempenho"),
    "lane_drift": ("inputs", "entradas"),
    "lane_missing": ("evidence", "evidência"),
    "lane_integrity": ("predictions", "predições"),
    # --- the footer ---
    "about_reference": (
        "Reference: {days} days, {first} to {last}, version {number} of the baseline of {model} version {version}.",
        "Referência: {days} dias, {first} a {last}, versão {number} da base de {model} versão {version}.",
    ),
    "about_no_reference": (
        "The reference of this model version has no days: nothing is judged against it.",
        "A referência desta versão do modelo não tem dias: nada é avaliado contra ela.",
    ),
    "about_days": (
        (
            "Days are local days ({zone}) of the rows' own time. A day's outcomes arrive later; until enough are "
            "known it is provisional, and never a reason for an alarm."
        ),
        (
            "Os dias são dias locais ({zone}) do tempo das próprias linhas. Os desfechos chegam depois; até haver"
            " bastantes o dia é provisório e nunca motivo de alarme."
        ),
    ),
    "about_detectable": (
        (
            "Detectable: the smallest lasting change that the rules find within a week. A smaller one may be "
            "there unseen. The band in the pictures is the reference's mean plus and minus this."
        ),
        (
            "Detectável: a menor mudança duradoura que as regras encontram em uma semana. Uma menor pode existir "
            "sem ser vista. A faixa nas figuras é a média da referência mais ou menos isso."
        ),
    ),
    "about_overdispersion": (
        "The accuracy of the reference's days differs {times} times as much as that of independent rows would.",
        "A acurácia dos dias da referência difere {times} vezes o que linhas independentes difeririam.",
    ),
    "about_interval": (
        (
            "An interval of several days is the wider of two: what the rows within the days give, and what the "
            "days' own differences give."
        ),
        "O intervalo de vários dias é o maior de dois: o das linhas de cada dia e o das diferenças entre os dias.",
    ),
    "about_estimate": (
        (
            "Estimates are made before outcomes are known and assume that a score still means what it meant; they"
            " never raise an alarm."
        ),
        (
            "As estimativas são feitas antes dos desfechos e supõem que o escore ainda significa o mesmo; nunca "
            "geram alarme."
        ),
    ),
    "about_drift": (
        (
            "Drift over its limit: chi-square over its degrees of freedom, as a multiple of the largest of the "
            "reference's own days. Drift of an input is no loss of quality by itself; it says where to look."
        ),
        (
            "Deriva sobre o limite: qui-quadrado por grau de liberdade, em múltiplos do maior dos dias da própria "
            "referência. Deriva de uma entrada não é, por si, perda de qualidade; diz onde olhar."
        ),
    ),
    "made": (
        (
            "Made by Plantão on {moment} from the tables of schema plantao; nothing on this page is loaded from "
            "elsewhere."
        ),
        (
            "Feito pelo Plantão em {moment} a partir das tabelas do esquema plantao; nada nesta página é "
            "carregado de fora."
        ),
    ),
}


def tell(key: str, language: Language, **values: object) -> str:
    """Return a text of the report, with the values in their places; never yet escaped. Raises KeyError for none."""
    return TEXTS[key][language == "pt"].replace(" %", "\u00a0%").format(**values)
