"""A schedule's runs that waited for a worker are not made up for one after the other."""

from datetime import timedelta
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from cots.flows.late_runs import is_superseded
from tests.flows.conftest import Server
from tests.servers import waited_for

pytestmark = pytest.mark.slow
PERIODS = 7


def test_of_seven_periods_without_a_worker_one_run_is_left(server: Server) -> None:
    with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("waits-for-a-worker")
        schedule = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(seconds=1)), active=True)
        deployment = client.create_deployment(flow, "every-second", schedules=[schedule])
        deployments = {"deployments": {"id": {"any_": [str(deployment)]}}, "sort": "EXPECTED_START_TIME_ASC"}
        due = {"flow_runs": {"state": {"name": {"any_": ["Late", "Scheduled"]}}}}

        def all_runs() -> list[UUID]:
            return [UUID(run["id"]) for run in server.ask("/flow_runs/filter", deployments | due)]

        waited_for(lambda: len(all_runs()) > PERIODS and is_superseded(all_runs()[PERIODS - 1]), 60, every=0.5)
        client.pause_deployment(deployment)  # takes back the runs that are not due yet
        waiting = all_runs()
        assert len(waiting) >= PERIODS
        assert [is_superseded(run) for run in waiting] == [True] * (len(waiting) - 1) + [False]

        by_hand = client.create_flow_run_from_deployment(deployment).id
        assert not is_superseded(by_hand)
