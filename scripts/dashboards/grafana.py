"""Makes Grafana's JSON of a dashboard's values, with Grafana's own types: `grafana-foundation-sdk`, of Grafana 11.6.

Newer versions of Grafana take it as it is, since each migrates older schemas. Nothing in it depends on machine or time.
"""

import json
import re
from collections.abc import Iterator

from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as styles
from grafana_foundation_sdk.models import dashboard as schema
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from scripts.dashboards.spec import Dashboard, Limits, Panel, Row, Variable

SOURCE = schema.DataSourceRef(type_val="prometheus", uid="${datasource}")
SCOPE = 'namespace=~"$namespace", release=~"$release"'
TAG = "rlhf-online"
ANNOTATED_S = 60
"""Step of the annotations' queries, and how far back they look for what was not there yet."""
WIDTH = 24
"""Of Grafana's grid."""
HEIGHTS = {"stat": 5, "lines": 8, "bars": 8, "table": 8, "timeline": 8}

AnyPanel = timeseries.Panel | stat.Panel | table.Panel | statetimeline.Panel


def scoped(promql: str) -> str:
    """PromQL with the matchers of namespace and release put into every selector."""
    return re.sub(r"(?<=[\w:])\{", f"{{{SCOPE}, ", promql).replace(", }", "}")


def render(dashboard: Dashboard) -> str:
    """The JSON of a dashboard, with a newline at its end."""
    made = (
        build.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.what)
        .tags([TAG])
        .editable()
        .tooltip(schema.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .link(
            build.DashboardLink("rlhf-online")
            .type(schema.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(True)
        )
        .variables([_datasource(), _labels("namespace"), _labels("release"), *map(_labels, dashboard.variables)])
        .annotations([SWAPS, OBJECTIONS])
    )
    number = 0
    for row in dashboard.rows:
        made = made.with_row(build.Row(row.title))
        for panel, height in _laid_out(row):
            number += 1
            made = made.with_panel(_panel(panel).height(height).id(number))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _laid_out(row: Row) -> Iterator[tuple[Panel, int]]:
    """The panels of a row, each as high as the highest of its line."""
    line: list[Panel] = []
    for panel in row.panels:
        line.append(panel)
        if sum(one.width for one in line) >= WIDTH:
            height = max(HEIGHTS[one.kind] for one in line)
            yield from ((one, height) for one in line)
            line = []
    assert not line, f"{row.title}: the last line is not full"


def _datasource() -> build.DatasourceVariable:
    return build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _labels(name: Variable | str) -> build.QueryVariable:
    """A variable of the values that a label has.

    Of namespaces and releases one is chosen, so that no panel adds up what has nothing to do with each other; where
    Prometheus does not set the label, Grafana puts in "", which a series without it matches.
    """
    metric, label, scope = {
        "namespace": ("rlhf_time_seconds", "namespace", ""),
        "release": ("rlhf_time_seconds", "release", 'namespace=~"$namespace"'),
        "service": ("up", "job", SCOPE),
        "version": ("rlhf_serving_version_info", "version", SCOPE),
    }[name]
    query = {"qryType": 1, "query": f"label_values({metric}{f'{{{scope}}}' if scope else ''}, {label})", "refId": name}
    made = build.QueryVariable(name).label(name.capitalize()).datasource(SOURCE).query(query)
    made.refresh(schema.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(schema.VariableSort.NATURAL_ASC)
    if name in ("service", "version"):
        every = schema.VariableOption(selected=True, text=["All"], value=["$__all"])
        made.multi(True).include_all(True).all_value(".*").current(every)
    return made


class _Annotation(build.AnnotationQuery):
    """An annotation by a Prometheus query. Grafana's schema lacks what only its Prometheus plugin reads."""

    def __init__(self, name: str, promql: str, title: str, color: str) -> None:
        super().__init__()
        self._title = title
        self.name(name).datasource(SOURCE).enable(True).icon_color(color).expr(scoped(promql))

    def build(self) -> schema.AnnotationQuery:
        return _PrometheusAnnotation(super().build(), self._title)


class _PrometheusAnnotation(schema.AnnotationQuery):
    def __init__(self, query: schema.AnnotationQuery, title: str) -> None:
        super().__init__(**vars(query))
        self._title = title

    def to_json(self) -> dict[str, object]:
        given = {"step": f"{ANNOTATED_S}s", "titleFormat": self._title, "textFormat": "", "tagKeys": ""}
        return {**super().to_json(), **given}


SWAPS = _Annotation(
    "Swaps",
    f"max by (version) (rlhf_serving_version_info{{}})"
    f" unless max by (version) (rlhf_serving_version_info{{}} offset {ANNOTATED_S}s)",
    "{{version}} serves",
    "blue",
)
OBJECTIONS = _Annotation(
    "Objections of the gate",
    f'sum by (kind, check) (increase(rlhf_gate_verdicts_total{{verdict="objected"}}[{ANNOTATED_S}s])) > 0',
    "the gate objects to {{kind}}: {{check}}",
    "orange",
)


def _panel(panel: Panel) -> AnyPanel:
    made: AnyPanel = _kind(panel)
    made.title(panel.title).description(described(panel)).unit(panel.unit).datasource(SOURCE)
    made.span(panel.width)
    made.thresholds(_thresholds(panel.limits)).color_scheme(_color(panel))
    if panel.least is not None:
        made.min(panel.least)
    if panel.most is not None:
        made.max(panel.most)
    if panel.names:
        made.mappings([_named(panel)])
    if panel.needs:
        made.no_value(f"needs {panel.needs}")
    made.links(
        [
            build.DashboardLink(f"Runbook: {name}").type(schema.DashboardLinkType.LINK).url(f"docs/runbooks/{name}.md")
            for name in panel.runbooks
        ]
    )
    for ref, (legend, promql) in zip("ABCDEFGHIJ", panel.queries.items(), strict=False):
        made.with_target(_query(panel, promql, legend).ref_id(ref))
    return made


def described(panel: Panel) -> str:
    """What stands behind a panel's "i"."""
    parts = [panel.what, f"**Good:** {panel.good}", f"**If not:** {panel.do}"]
    return "\n\n".join(parts + ([f"Needs {panel.needs}; empty without."] if panel.needs else []))


def _query(panel: Panel, promql: str, legend: str) -> prometheus.Dataquery:
    """Numbers and tables are of now: the last value in a range may be of a version, or of a service, long gone."""
    query = prometheus.Dataquery().expr(scoped(promql)).legend_format(legend).datasource(SOURCE)
    match panel.kind:
        case "table":
            return query.instant().format(PromQueryFormat.TABLE)
        case "stat":
            return query.instant()
        case _:
            return query.range()


def _kind(panel: Panel) -> AnyPanel:
    legend = common.VizLegendOptions().show_legend(True).placement(styles.LegendPlacement.BOTTOM)
    legend.display_mode(styles.LegendDisplayMode.LIST)
    match panel.kind:
        case "stat":
            last = common.ReduceDataOptions().calcs(["lastNotNull"])
            text = styles.BigValueTextMode.NAME if panel.legend_only else styles.BigValueTextMode.AUTO
            made = stat.Panel().reduce_options(last).text_mode(text)
            return made.color_mode(styles.BigValueColorMode.VALUE).graph_mode(styles.BigValueGraphMode.NONE)
        case "table":
            return table.Panel().filterable(True)
        case "timeline":
            return statetimeline.Panel().legend(legend).show_value(styles.VisibilityMode.AUTO).fill_opacity(70)
        case "lines" | "bars":
            return _series(panel).legend(legend)


def _series(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().show_points(styles.VisibilityMode.AUTO)
    made.tooltip(common.VizTooltipOptions().mode(styles.TooltipDisplayMode.MULTI).sort(styles.SortOrder.DESCENDING))
    if panel.kind == "bars":
        made.draw_style(styles.GraphDrawStyle.BARS).fill_opacity(60)
    else:
        made.line_width(1.5).fill_opacity(20 if panel.stacked else 0)
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(styles.StackingMode.NORMAL))
    if panel.log:
        made.scale_distribution(common.ScaleDistributionConfig().type(styles.ScaleDistribution.LOG).log(10))
    if panel.limits.steps:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(styles.GraphThresholdsStyleMode.DASHED))
    return made


def _thresholds(limits: Limits) -> build.ThresholdsConfig:
    steps = [schema.Threshold(value=None, color=limits.base)]
    steps += [schema.Threshold(value=value, color=color) for value, color in limits.steps]
    return build.ThresholdsConfig().mode(schema.ThresholdsMode.ABSOLUTE).steps(steps)


def _color(panel: Panel) -> build.FieldColor:
    by_value = panel.kind in ("stat", "timeline", "table")
    mode = schema.FieldColorModeId.THRESHOLDS if by_value else schema.FieldColorModeId.PALETTE_CLASSIC
    return build.FieldColor().mode(mode)


def _named(panel: Panel) -> schema.ValueMap:
    return schema.ValueMap(
        options={
            f"{value:g}": schema.ValueMappingResult(text=text, color=color)
            for value, (text, color) in (panel.names or {}).items()
        }
    )
