"""The golden path as a versioned product: what `defaults = "fairway@1"` means, per risk."""

from typing import Any

from fairway.contract.settings import MonitorSettings, RetrainSettings, Risk, RolloutSettings
from fairway.contract.view import format_duration
from fairway.rollout.plan import SHADOW

NAME = "fairway@1"
RISKS: tuple[Risk, ...] = ("low", "medium", "high")


def of(risk: Risk) -> dict[str, Any]:
    """The resolved defaults of one risk, JSON-able; what fairway.toml says goes before."""
    rollout, monitor, retrain = RolloutSettings(), MonitorSettings(), RetrainSettings()
    return {
        "gates": {
            "always": ["better than the base rate", "not worse than the champion"],
            "unknown": "blocks",
            "too_few": "asks a person" if risk == "high" else "warns",
        },
        "rollout": {
            "shadow": format_duration(SHADOW[risk]) if SHADOW[risk] else "none",
            "shares": list(rollout.shares),
            "n_min": rollout.n_min,
            "season": format_duration(rollout.season),
            "approval": "another named person approves" if risk == "high" else "none",
        },
        "monitor": {
            "window": format_duration(monitor.window),
            "budget": monitor.budget,
            "js_alarm": monitor.js_alarm,
            "js_notice": monitor.js_notice,
            "rows_between_false_alarms": monitor.rows_between_false_alarms,
        },
        "retrain": {"every": "never", "on_alarm": retrain.on_alarm, "per_month": retrain.per_month},
    }


def describe() -> list[dict[str, Any]]:
    """One entry per risk, for `fairway show defaults`."""
    return [{"defaults": NAME, "risk": risk, **of(risk)} for risk in RISKS]
