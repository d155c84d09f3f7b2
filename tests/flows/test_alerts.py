"""Each alert arrives at a receiver."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed, Scheduled

from cots.errors import BadInput
from cots.flows.alerts import ALERTS, CUSTOM_WEBHOOK_DATA, DRIFTED, REFUSED, create_alerts, report_event
from tests.flows.conftest import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def received() -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """The address of a receiver, and what it receives."""
    messages: Queue[dict[str, Any]] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            messages.put(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/alerts", messages
        server.shutdown()
        thread.join()


@pytest.fixture
def on_server(server: Server) -> Iterator[Server]:
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield server


@pytest.mark.usefixtures("on_server")
def test_every_alert_arrives_once_with_what_to_look_at(received: tuple[str, Queue[dict[str, Any]]]) -> None:
    address, messages = received
    block = CustomWebhookNotificationBlock(
        name="receiver", url=address, json_data=json.loads(CUSTOM_WEBHOOK_DATA), headers=None, cookies=None
    )
    block.save("receiver", overwrite=True)
    names = create_alerts("custom-webhook/receiver")
    assert create_alerts("custom-webhook/receiver") == names  # replaced, not doubled
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("nightly-work")
        deployment = client.create_deployment(flow, "without-a-worker")
        client.create_flow_run_from_deployment(
            deployment, state=Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=1))
        )
        failing = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(failing.id, Failed(message='no space left on "/data"'), force=True)
    report_event(REFUSED, "cots-index version 2: not shown to be better")
    report_event(DRIFTED, "texts differ")
    arrived = {message["alert"]: message for message in (messages.get(timeout=90) for _ in ALERTS)}
    assert set(arrived) == set(names)
    assert arrived["cots: a run failed"]["message"].startswith("nightly-work")
    assert arrived["cots: a run failed"]["message"].endswith('no space left on "/data"')
    assert arrived["cots: a new version was refused"]["message"] == "cots-index version 2: not shown to be better"
    assert arrived["cots: queries or samples drift"]["message"] == "texts differ"
    assert messages.empty()


@pytest.mark.usefixtures("on_server")
def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInput, match="no block slack-webhook/nowhere in Prefect: create it on its page"):
        create_alerts("slack-webhook/nowhere")


def test_a_block_that_loses_messages_is_refused() -> None:
    with pytest.raises(BadInput, match="Custom Webhook .* name it as custom-webhook/receiver"):
        create_alerts("webhook/receiver")
