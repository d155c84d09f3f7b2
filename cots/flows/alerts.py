"""Alerts: Prefect automations that send a message when a run or a version needs attention.

`python -m cots.flows.alerts TYPE/NAME` creates or updates them. TYPE/NAME is a block that somebody has created on
Prefect's page and that sends notifications, such as a `slack-webhook`, or a `custom-webhook` for any other receiver.
"""

import sys
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from cots.errors import BadInput, exit_on_error

PREFIX = "cots: "
REFUSED, DRIFTED = "cots.version.refused", "cots.drift.found"
WEBHOOK = "webhook"  # blocks whose calls share a connection pool, which each call closes: of two at once, one is lost
CUSTOM_WEBHOOK_DATA = '{"alert": "{{subject}}", "message": "{{body}}"}'


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        name: of the automation, without `PREFIX`; also the subject of the message.
        events: Prefect events, each of which triggers it.
        text: the message, as an expression in Prefect's templates.
    """

    name: str
    events: frozenset[str]
    text: str


RUN_TEXT = "flow.name ~ ' (' ~ flow_run.name ~ '): ' ~ (flow_run.state.message or flow_run.state.name)"
EVENT_TEXT = "event.payload.message"
ALERTS = (
    Alert(
        "a run failed",
        frozenset({"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}),
        RUN_TEXT,
    ),
    Alert("a run is late", frozenset({"prefect.flow-run.Late"}), RUN_TEXT),
    Alert("a new version was refused", frozenset({REFUSED}), EVENT_TEXT),
    Alert("queries or samples drift", frozenset({DRIFTED}), EVENT_TEXT),
)


def report_event(event: str, message: str) -> None:
    """Emit a Prefect event, `REFUSED` or `DRIFTED`, with a message that says why it happened."""
    emit_event(event=event, resource={"prefect.resource.id": "cots.index"}, payload={"message": message})


def create_alerts(block: str) -> list[str]:
    """Create the automations of `ALERTS`, or replace those of an earlier call.

    Args:
        block: type and name of a block, such as `custom-webhook/alerts` or `slack-webhook/alerts`.

    Returns:
        The names of the automations.

    Raises:
        BadInput: there is no such block, or it is a `webhook`, which loses messages that are sent at the same time.
    """
    kind, _, name = block.partition("/")
    if kind == WEBHOOK:
        raise BadInput(
            f"{block}: blocks of type Webhook lose a message when two are sent at the same time: create one of type "
            f"Custom Webhook (JSON Data: {CUSTOM_WEBHOOK_DATA}) and name it as custom-webhook/{name or 'NAME'}"
        )
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(name, kind)
        except ObjectNotFound:
            raise BadInput(
                f"no block {block} in Prefect: create it on its page (Blocks), and name it as TYPE/NAME"
            ) from None
        assert document.id is not None
        for alert in ALERTS:
            for old in client.read_automations_by_name(PREFIX + alert.name):
                client.delete_automation(old.id)
            client.create_automation(_build_automation(alert, document.id))
    return [PREFIX + alert.name for alert in ALERTS]


def _build_automation(alert: Alert, block: UUID) -> AutomationCore:
    action = SendNotification(block_document_id=block, subject=PREFIX + alert.name, body=f"{{{{ {alert.text} }}}}")
    trigger = EventTrigger(expect=set(alert.events), posture=Posture.Reactive, threshold=1)
    return AutomationCore(name=PREFIX + alert.name, trigger=trigger, actions=[action])


if __name__ == "__main__":
    with exit_on_error():
        if len(sys.argv) != 2:
            raise BadInput("name a block of Prefect: python -m cots.flows.alerts TYPE/NAME")
        for alert_name in create_alerts(sys.argv[1]):
            print(alert_name)
