"""The spooler: one small process per node that moves containers' output from their FIFOs into files.

Owns the reading ends of the FIFOs, so that what a container wrote outlives the container whoever else is dead: dockerd,
dockershim or both. `splice` moves bytes inside the kernel: they are in the FIFO or in the file at any moment, so that
even its own death loses nothing while the container lives. From the files it also feeds the engine's pipes, for
`docker logs` and attach; an engine that does not read is waited for a moment, then left behind. dockershim reads the
files, removes what it has read, and starts this process when there is none; it ends by itself when it has no container
and no dockershim. Imports little and knows nothing of the rest of dockershim. Upstream counterpart: conmon, one process
for each container.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import socket
import time

from dockershim.oci import spool

AHEAD_SEGMENTS = 64
"""256 MiB of one stream that dockershim has not read: then the container waits."""
TURN_BYTES = 1 << 20
PACE_SECONDS = 0.005
"""Lines that come one by one are moved together; an idle process is woken by the first."""
ENGINE_LAG_BYTES = 1 << 20
ENGINE_PATIENCE_SECONDS = 1.0
RETRY_SECONDS = 0.25
IDLE_SECONDS = 10.0

MOVED, EMPTY, ENDED, WAITS = "moved", "empty", "ended", "waits"


class Stream:
    """One stream of one container: FIFO to segments, segments to the engine."""

    def __init__(self, directory: str, name: str, fifo: int, engine: int = -1) -> None:
        self.directory, self.name, self.fifo, self.engine = directory, name, fifo, engine
        numbers = spool.segment_numbers(directory, name)
        self.number = numbers[-1] if numbers else 0
        self.file = self._open_segment(self.number)
        self.size = os.fstat(self.file).st_size
        self.engine_at = self.end
        self._engine_segment = -1  # the descriptor of an older segment that the engine still has to get
        self._engine_moved_at = time.monotonic()
        self.engine_is_stuck = False
        """It has not read for longer than it is waited for; so it stays until it reads again."""
        self.retry_at = 0.0
        self.trouble = ""
        self.is_lost = False

    @property
    def end(self) -> int:
        """So many bytes have come."""
        return self.number * spool.SEGMENT_BYTES + self.size

    def _open_segment(self, number: int) -> int:
        path = spool.segment(self.directory, self.name, number)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self) -> str:
        """Move what has come into the segments; what became of it. OSError: a disk that is full, nothing is lost."""
        if self.is_lost:
            return self.lose()
        moved = 0
        while moved < TURN_BYTES:
            if self.size == spool.SEGMENT_BYTES and not self._next_segment():
                return WAITS
            if self.engine_waits and self.end - self.engine_at >= ENGINE_LAG_BYTES and not self.engine_is_stuck:
                return MOVED if self._announce(moved) else WAITS
            room = min(spool.SEGMENT_BYTES - self.size, TURN_BYTES - moved)
            try:
                count = os.splice(self.fifo, self.file, room, offset_dst=self.size, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                return MOVED if self._announce(moved) else EMPTY
            self.size += count
            moved += count
            if not count:
                self._announce(moved)
                return ENDED
        self._announce(moved)
        return MOVED

    def lose(self) -> str:
        """The container was removed, and its directory with it: what still comes from it is nobody's."""
        self.leave_engine()
        self.is_lost = True
        try:
            return MOVED if os.read(self.fifo, TURN_BYTES) else ENDED
        except BlockingIOError:
            return EMPTY

    def _announce(self, moved: int) -> bool:
        """Wake who watches the file: not every kernel tells of what was spliced. Its time says when the last came."""
        if moved:
            now_ns = time.time_ns()
            os.utime(self.file, ns=(now_ns, now_ns))
        return moved > 0

    def _next_segment(self) -> bool:
        """False when dockershim is too far behind. OSError leaves all as it is."""
        if os.path.exists(spool.segment(self.directory, self.name, self.number + 1 - AHEAD_SEGMENTS)):
            return False
        fresh = self._open_segment(self.number + 1)
        if self.engine_waits and self._engine_segment < 0:
            self._engine_segment = self.file
        else:
            os.close(self.file)
            self.engine_at = self.end  # it has all, or it is behind by more than one segment
        self.file, self.number, self.size = fresh, self.number + 1, 0
        return True

    @property
    def engine_waits(self) -> bool:
        """It has not got all."""
        return self.engine >= 0 and self.engine_at < self.end

    def feed_engine(self) -> None:
        """Copy on what the engine has room for. One that was stuck and is too far behind goes on at the end."""
        start = self.number * spool.SEGMENT_BYTES
        while self.engine_waits:
            if self.end - self.engine_at > ENGINE_LAG_BYTES + TURN_BYTES:
                self.engine_at = self.end
            is_older = self.engine_at < start
            if is_older and self._engine_segment < 0:
                self.engine_at = start
                continue
            at = self.engine_at % spool.SEGMENT_BYTES
            count = (spool.SEGMENT_BYTES if is_older else self.size) - at
            source = self._engine_segment if is_older else self.file
            try:
                count = os.splice(source, self.engine, count, offset_src=at, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:  # only now is it known: this process may have been away for longer
                self.engine_is_stuck |= time.monotonic() - self._engine_moved_at > ENGINE_PATIENCE_SECONDS
                break
            except OSError:  # the shim has closed its end
                self.leave_engine()
                break
            self.engine_at += count
            self._engine_moved_at, self.engine_is_stuck = time.monotonic(), False
        if not self.engine_waits and not self.engine_is_stuck:
            self._engine_moved_at = time.monotonic()  # it cannot be late with what it has
        if self._engine_segment >= 0 and self.engine_at >= start:
            os.close(self._engine_segment)
            self._engine_segment = -1

    def leave_engine(self) -> None:
        """The engine hears no more."""
        if self.engine >= 0:
            os.close(self.engine)
            self.engine = -1

    def end_fifo(self) -> None:
        """Nobody can write any more and all is in the segments: say so by removing the FIFO."""
        os.close(self.fifo)
        self.fifo = -1
        with contextlib.suppress(OSError):
            os.unlink(spool.fifo(self.directory, self.name))

    def close(self) -> None:
        """Give all descriptors back. Again: nothing happens."""
        self.leave_engine()
        for descriptor in (self.fifo, self.file, self._engine_segment):
            if descriptor >= 0:
                os.close(descriptor)
        self.fifo = self.file = self._engine_segment = -1


class Spooler:
    """All streams of a node, and the socket at which they come."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._poll = select.epoll()
        self._streams: dict[tuple[str, str], Stream] = {}
        self._by_descriptor: dict[int, Stream] = {}
        self._connections: dict[int, socket.socket] = {}
        self._waiting: list[Stream] = []
        self._listener = self._listen()
        self._idle_since = time.monotonic()
        self._find_streams()

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptor, path = spool.reachable(self._directory)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        before = os.umask(0o177)
        listener.bind(path)
        os.umask(before)
        os.close(descriptor)
        listener.listen(128)
        listener.setblocking(False)
        self._poll.register(listener.fileno(), select.EPOLLIN)
        return listener

    def _find_streams(self) -> None:
        """Go on with those of a spooler that has died; the engine's ends died with it."""
        for entry in os.scandir(self._directory):
            for name in spool.STREAMS if entry.is_dir(follow_symlinks=False) else ():
                with contextlib.suppress(OSError):
                    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
                    self._add(entry.name, name, os.open(spool.fifo(entry.path, name), flags), -1)

    def _add(self, container_id: str, name: str, fifo: int, engine: int) -> None:
        old = self._streams.pop((container_id, name), None)
        if old is not None:  # the runtime failed, and is tried once more
            self._forget(old)
        try:
            stream = Stream(f"{self._directory}/{container_id}", name, fifo, engine)
        except OSError as error:  # the container was removed before it ran, or the disk is full
            say(f"{container_id}: {error}; it has no log")
            for end in (fifo, engine):
                if end >= 0:
                    os.close(end)
            return
        self._streams[container_id, name] = stream
        self._watch(fifo, stream, select.EPOLLIN)

    def _watch(self, descriptor: int, stream: Stream, events: int) -> None:
        if descriptor >= 0 and descriptor not in self._by_descriptor:
            self._by_descriptor[descriptor] = stream
            self._poll.register(descriptor, events)

    def _unwatch(self, descriptor: int) -> None:
        if self._by_descriptor.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):  # one that is closed is forgotten by itself
                self._poll.unregister(descriptor)

    def run(self) -> None:
        """Until there is nothing and nobody to work for."""
        while self._streams or self._connections or time.monotonic() - self._idle_since < IDLE_SECONDS:
            events = self._poll.poll(self._patience_seconds())
            streams = dict.fromkeys(self._due() if events else [*self._due(), *self._removed()])
            for descriptor, _ in events:
                stream = self._by_descriptor.get(descriptor)
                if stream is not None:
                    streams[stream] = None
                elif descriptor == self._listener.fileno():
                    self._accept()
                    streams |= dict.fromkeys(self._removed())
                else:
                    self._receive(descriptor)
            for stream in streams:
                self._serve(stream)
            if self._streams or self._connections:
                self._idle_since = time.monotonic()
            if streams:
                time.sleep(PACE_SECONDS)

    def _patience_seconds(self) -> float:
        if self._waiting:
            return max(0.0, min(stream.retry_at for stream in self._waiting) - time.monotonic())
        return -1.0 if self._connections else IDLE_SECONDS

    def _removed(self) -> list[Stream]:
        """Those whose container is gone. What nobody ever wrote to, or nobody will, does not wake us when it ends."""
        return [stream for stream in self._streams.values() if not os.path.isdir(stream.directory)]

    def _due(self) -> list[Stream]:
        now = time.monotonic()
        due = [stream for stream in self._waiting if stream.retry_at <= now]
        self._waiting = [stream for stream in self._waiting if stream.retry_at > now]
        return due

    def _serve(self, stream: Stream) -> None:
        """One turn of one stream."""
        outcome = ENDED
        if stream.fifo >= 0:
            try:
                outcome = stream.take()
                stream.trouble = ""
            except FileNotFoundError:
                outcome = stream.lose()
            except OSError as error:
                outcome = WAITS
                if stream.trouble != str(error):
                    stream.trouble = str(error)
                    say(f"{stream.directory}/{stream.name}: {error}; the container waits")
        if outcome == ENDED and stream.fifo >= 0:
            self._unwatch(stream.fifo)
            stream.end_fifo()
        if stream.engine >= 0:
            engine = stream.engine
            stream.feed_engine()
            if stream.engine < 0 or not stream.engine_waits:
                self._unwatch(engine)
            else:
                self._watch(engine, stream, select.EPOLLOUT)
        if outcome == ENDED:
            if stream.engine_waits and not stream.engine_is_stuck:
                self._retry(stream)
            else:
                self._streams = {key: each for key, each in self._streams.items() if each is not stream}
                self._forget(stream)
        elif outcome == WAITS:
            self._unwatch(stream.fifo)
            self._retry(stream)
        else:
            self._watch(stream.fifo, stream, select.EPOLLIN)

    def _retry(self, stream: Stream) -> None:
        if stream not in self._waiting:
            stream.retry_at = time.monotonic() + RETRY_SECONDS
            self._waiting.append(stream)

    def _forget(self, stream: Stream) -> None:
        self._unwatch(stream.fifo)
        self._unwatch(stream.engine)
        self._waiting = [each for each in self._waiting if each is not stream]
        stream.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._connections[connection.fileno()] = connection
            self._poll.register(connection.fileno(), select.EPOLLIN)

    def _receive(self, descriptor: int) -> None:
        """A container's ends. The end of a connection is the end of who holds it: dockershim keeps one open."""
        connection = self._connections[descriptor]
        try:
            data, ends, _, _ = socket.recv_fds(connection, spool.ID_BYTES, 2 * len(spool.STREAMS))
        except BlockingIOError:
            return
        except OSError:
            data, ends = b"", []
        if data and len(ends) == 2 * len(spool.STREAMS):
            for end in ends[1::2]:
                os.set_blocking(end, False)
                with contextlib.suppress(OSError):
                    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, spool.PIPE_BYTES)
            for index, name in enumerate(spool.STREAMS):
                self._add(data.decode(), name, ends[2 * index], ends[2 * index + 1])
            return
        for end in ends:
            os.close(end)
        if not data:
            self._poll.unregister(descriptor)
            del self._connections[descriptor]
            connection.close()


def say(message: str) -> None:
    """One line where dockershim's own go, as long as somebody reads them."""
    with contextlib.suppress(OSError):
        os.write(2, f"dockershim-oci spooler: {message}\n".encode())


def main(directory: str) -> int:
    """Serve in a process that is nobody's child. Returns in the first one when that serves, or another one does."""
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        return 0 if os.read(ready, 1) else 1
    os.setsid()
    os.close(ready)
    lock = os.open(f"{directory}/{spool.LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(tell, b"1")
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    spooler = Spooler(directory)
    os.write(tell, b"1")
    os.close(tell)
    spooler.run()
    return 0
