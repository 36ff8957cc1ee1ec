"""Idle time of the control plane: requests and waiting long polls end it, probes and reports of sidecars do not."""

from tuttilab.scheduler.server.shutdown import Activity, Message, Receive, Send


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def ask(activity: Activity, path: str) -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None: ...

    await activity({"type": "http", "path": path}, receive, send)


async def test_request_resets_the_idle_time_and_probes_and_reports_do_not() -> None:
    clock = Clock()

    async def application(scope: Message, receive: Receive, send: Send) -> None: ...

    activity = Activity(application, clock)
    clock.now += 60
    for path in ("/healthz", "/api/v1/readyz", "/metrics", "/api/v1/pods/report"):
        await ask(activity, path)
    before = activity.idle_s()
    await ask(activity, "/api/v1/jobs")
    clock.now += 5

    assert (before, activity.idle_s()) == (60.0, 5.0)


async def test_waiting_long_poll_is_not_idle() -> None:
    clock = Clock()
    seen: list[float] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        clock.now += 25
        seen.append(activity.idle_s())

    activity = Activity(application, clock)
    await ask(activity, "/api/v1/changes")

    assert (seen, activity.idle_s()) == ([0.0], 0.0)


async def test_failed_request_is_not_in_flight_any_more() -> None:
    clock = Clock()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    activity = Activity(application, clock)
    try:
        await ask(activity, "/api/v1/jobs")
    except ValueError:
        clock.now += 7

    assert activity.idle_s() == 7.0
