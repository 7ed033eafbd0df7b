"""What viser 0.2.7 gets wrong, or has no call for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tarfile import TarFile

    from viser.infra import WebsockMessageHandler


@cache
def repair_viser() -> None:
    """Makes viser 0.2.7 send to pages as it means to, and start sooner; for all servers of this process.

    - viser keeps the lock of `atomic` (messages sent in it arrive together) for good when something raises in the
      block, and then no page gets a message any more. It also notes that no thread has the lock only after giving it
      back, when another thread may have it already, which then waits for itself.
    - viser goes through the archive of all its icons for each of them, half a second each: it is opened once.
    - Two tasks write to a page: what is for all pages, and what is for this one. The old interface of websockets, which
      viser uses, allows only one to wait until a slow page has read: the other fails, and the page freezes.
    """
    import asyncio
    from weakref import WeakKeyDictionary

    from viser import _gui_api, _gui_handles
    from viser.infra import WebsockMessageHandler
    from websockets.legacy.protocol import WebSocketCommonProtocol

    WebsockMessageHandler.atomic = _atomic  # type: ignore[assignment]
    _gui_api.svg_from_icon = _gui_handles.svg_from_icon = _icon
    drain = WebSocketCommonProtocol._drain
    turns: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()

    async def one_after_the_other(connection: WebSocketCommonProtocol) -> None:
        async with turns.setdefault(connection, asyncio.Lock()):
            await drain(connection)

    WebSocketCommonProtocol._drain = one_after_the_other  # type: ignore[assignment]


@cache
def _icon(name: str) -> str:
    file = _icons().extractfile(f"{name}.svg")
    assert file is not None, f"viser has no icon {name}"
    return file.read().decode("utf-8")


@cache
def _icons() -> "TarFile":
    import tarfile

    from viser._icons import ICONS_DIR

    return tarfile.open(ICONS_DIR / "tabler-icons.tar")


@contextmanager
def _atomic(handler: "WebsockMessageHandler") -> Iterator[None]:
    thread = threading.get_ident()
    if handler._locked_thread_id == thread:
        yield
        return
    with handler._atomic_lock:
        handler._locked_thread_id = thread
        try:
            yield
        finally:
            handler._locked_thread_id = -1


@contextmanager
def unreachable_viser() -> Iterator[None]:
    """A viser server that is made in this block has its port, and pages reach it when the block has ended.

    A page that comes while there is half of what it is to show looks the wrong way, or stays empty.
    """
    import asyncio
    from importlib import import_module

    server: Any = import_module("websockets.server")
    serve, made = server.serve, []

    def later(*args: Any, **options: Any) -> Any:
        made.append(serve(*args, start_serving=False, **options))
        return made[-1]

    server.serve = later
    try:
        yield
    finally:
        server.serve = serve
    listening = made[-1].ws_server  # those before did not get their ports
    asyncio.run_coroutine_threadsafe(listening.start_serving(), listening.get_loop()).result()


def relabel(handle: Any, label: str) -> None:
    """Another label of an element of a page, which viser 0.2.7 has no call for."""
    from viser._messages import GuiUpdateMessage

    element = handle._impl
    element.gui_api._websock_interface.queue_message(GuiUpdateMessage(element.id, {"label": label}))


def forget_node(node: Any) -> None:
    """Removes a node from a scene of viser's, and what the server keeps of it for pages to come.

    viser 0.2.7 keeps all of it for good: a page that is opened later would get the node, and be told to remove it.
    """
    from viser._messages import RemoveSceneNodeMessage

    name, scene = node._impl.name, node._impl.api
    node.remove()
    scene._handle_from_node_name.pop(name, None)
    buffer = getattr(scene._websock_interface, "_broadcast_buffer", None)
    if buffer is None:  # the scene of one page, for which nothing is kept
        return
    with buffer.buffer_lock:
        for number, message in list(buffer.message_from_id.items()):
            # Pages that have it are to be told.
            if getattr(message, "name", None) == name and not isinstance(message, RemoveSceneNodeMessage):
                del buffer.message_from_id[number]
                buffer.id_from_redundancy_key.pop(message.redundancy_key(), None)
