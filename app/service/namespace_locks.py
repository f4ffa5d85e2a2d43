"""Turns: in a namespace one caller after the other verifies and commits.

Without turns every commit would send all others back to verify again, and a slow one would never finish.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary


class NamespaceLocks:
    """A lock for each namespace, which exists while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def taken(self, namespaces: Collection[str]) -> AsyncIterator[None]:
        """Hold the locks of all these namespaces, acquired in a fixed order, so that no two callers wait for each
        other."""
        locks = [self._lock(name) for name in sorted(set(namespaces))]
        async with AsyncExitStack() as stack:
            for lock in locks:
                await stack.enter_async_context(lock)
            yield

    def _lock(self, namespace: str) -> asyncio.Lock:
        lock = self._locks.get(namespace)
        if lock is None:
            self._locks[namespace] = lock = asyncio.Lock()
        return lock
