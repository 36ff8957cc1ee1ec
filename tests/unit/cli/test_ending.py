"""What keeps the control plane's process alive: requests of people, long polls while they wait, and no probes."""

from tuttilab.scheduler.ending import Activity, Message, Receive, Send


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


async def test_request_ends_the_quiet_and_probes_and_reports_do_not() -> None:
    clock = Clock()

    async def application(scope: Message, receive: Receive, send: Send) -> None: ...

    activity = Activity(application, clock)
    clock.now += 60
    for path in ("/healthz", "/api/v1/readyz", "/metrics", "/api/v1/pods/report"):
        await ask(activity, path)
    before = activity.quiet_s()
    await ask(activity, "/api/v1/jobs")
    clock.now += 5

    assert (before, activity.quiet_s()) == (60.0, 5.0)


async def test_long_poll_is_no_quiet_while_it_waits() -> None:
    clock = Clock()
    seen: list[float] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        clock.now += 25
        seen.append(activity.quiet_s())

    activity = Activity(application, clock)
    await ask(activity, "/api/v1/changes")

    assert (seen, activity.quiet_s()) == ([0.0], 0.0)


async def test_request_that_fails_is_over_too() -> None:
    clock = Clock()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    activity = Activity(application, clock)
    try:
        await ask(activity, "/api/v1/jobs")
    except ValueError:
        clock.now += 7

    assert activity.quiet_s() == 7.0
