"""``apt-record``: records every stream of a robot into a rosbag2 bag, with prompt and episode marks.

Refuses to start while a stream is silent, slow or stale, ends cleanly on Ctrl-C, SIGTERM and a full disk,
and reports what was received beside what was written.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event

import rclpy
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.table import Table

from apt_policy.core.contract import ContractError, load_contract
from apt_policy.core.stop import stop_requests
from apt_policy.core.stream_spec import COMMAND_KINDS, StreamSpec
from apt_policy.ros.callbacks import Callbacks
from apt_recorder.bag_writer import BagError, BagWriter
from apt_recorder.episode_marker import EpisodeMarker
from apt_recorder.options import Options, parse
from apt_recorder.recorder import Recorder
from apt_recorder.repair import RepairError, recover_bag
from apt_recorder.streams import SelectionError, recorded_streams
from apt_recorder.terminal import KeyReader, RecordingDisplay, error_printer
from apt_recorder.type_definitions import TypeDefinitions, UnknownTypeError
from apt_recorder.writer_thread import WriterThread

_LOOK_S = 0.05
# Rates mean something only after they were measured for a while.
_MEASURE_S = 1.5
_HINT = 'space: begin or end an episode, d: discard it, q: end the recording'


def main(words: Sequence[str] | None = None) -> int:
    """Record until Ctrl-C, SIGTERM, a limit, or a full disk.

    Returns:
        0 for a whole recording; 1 if it could not start, or could not write all; 2 for arguments that cannot be
        used.
    """
    options = parse(sys.argv[1:] if words is None else words)
    console = Console(stderr=True)
    say = error_printer(console)
    try:
        if options.recover:
            return _recover(options, console)
        contract = load_contract(options.contract)
        specs = recorded_streams(contract, without=options.without)
        definitions = TypeDefinitions()
        for spec in specs:
            definitions.definition(spec.type_name)
    except (ContractError, SelectionError, RepairError, UnknownTypeError) as error:
        say(str(error))
        return 2
    with stop_requests() as stop:
        rclpy.init(args=list(options.ros), signal_handler_options=SignalHandlerOptions.NO)
        recorder = _recorder(options, specs, say)
        try:
            with Callbacks(recorder, stop), KeyReader() as keys:
                return _Session(options, recorder, definitions, stop, keys, console).run()
        finally:
            recorder.destroy_node()
            rclpy.try_shutdown()


def _recover(options: Options, console: Console) -> int:
    for part in recover_bag(options.folder):
        console.print(f'{part.name}: {part.messages} messages', markup=False, highlight=False)
    return 0


def _recorder(options: Options, specs: Sequence[StreamSpec], say: Callable[[str], None]) -> Recorder:
    return Recorder(specs, marker=EpisodeMarker(per_prompt=options.episode_per_prompt), min_rate=options.min_rate,
                    unstamped=options.stamp_on_receipt, report=say)


class _Session:
    """One recording from the first look at the streams to the report."""

    def __init__(self, options: Options, recorder: Recorder, definitions: TypeDefinitions, stop: Event, keys: KeyReader,
                 console: Console) -> None:
        self._options, self._recorder, self._definitions, self._stop = options, recorder, definitions, stop
        self._keys, self._console, self._say = keys, console, error_printer(console)

    def run(self) -> int:
        """The exit status."""
        if not self._streams_are_well():
            return 0 if self._stop.is_set() else 1
        try:
            bag = BagWriter(self._options.folder, self._options.bag, self._definitions)
        except BagError as error:
            self._say(str(error))
            return 1
        sink = WriterThread(bag, capacity_bytes=self._options.queue_bytes, report=self._say)
        self._recorder.start(sink)
        self._print(f'recording into {bag.folder}'
                    f'{", in simulated time" if self._recorder.has_simulated_time else ""}')
        self._warn_of_missing_commands()
        try:
            self._record(sink)
        finally:
            self._end_episode()
            self._recorder.stop()
            sink.close(lambda: _notes(self._recorder, sink))
            _print_report(self._recorder, sink, self._console)
        return 1 if sink.failure else 0

    def _streams_are_well(self) -> bool:
        """Whether every stream flows as the contract says, within the time that the user grants."""
        began = told = time.monotonic()
        while not self._stop.is_set():
            elapsed_s = time.monotonic() - began
            complaints = self._recorder.stream_problems()
            if elapsed_s >= _MEASURE_S and not complaints:
                return True
            if elapsed_s > max(self._options.wait_s, _MEASURE_S):
                break
            if time.monotonic() - told > 2.0:
                told = time.monotonic()
                self._print(f'waiting for {len(complaints)} streams: {complaints[0] if complaints else ""}')
            time.sleep(_LOOK_S)
        if not self._stop.is_set():
            self._say('not recording, since what would be missing makes the bag worthless:\n  '
                      + '\n  '.join(self._recorder.stream_problems())
                      + '\n  (--without NAME leaves a stream out, --wait S waits longer)')
        return False

    def _warn_of_missing_commands(self) -> None:
        watches = [watch for watch in self._recorder.monitors if watch.spec.kind in COMMAND_KINDS]
        if watches and not any(watch.publishers for watch in watches):
            self._say('nobody publishes targets or joint commands: episodes will be labelled with the poses that '
                      'the arms reached, which lag behind what was meant')

    def _record(self, sink: WriterThread) -> None:
        options, recorder = self._options, self._recorder
        began_ns = recorder.now_ns()
        with RecordingDisplay(recorder, sink, self._console, hint=_HINT if self._keys.available else '') as show:
            while not self._stop.is_set() and sink.failure is None:
                elapsed_s = (recorder.now_ns() - began_ns) / 1e9
                if (options.duration_s and elapsed_s >= options.duration_s) or (
                        options.episodes and recorder.marker.episodes >= options.episodes):
                    break
                for key in self._keys.read_keys():
                    if key == 'q':
                        return
                    recorder.publish_marks(recorder.marker.on_key(key))
                show.update(elapsed_s)
                time.sleep(_LOOK_S)

    def _end_episode(self) -> None:
        """Mark the end of an episode of this recorder's own, and wait until the mark is recorded."""
        self._recorder.publish_marks(self._recorder.marker.on_recording_end())
        deadline = time.monotonic() + 2.0
        while not self._recorder.marker.all_marks_received and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        if self._recorder.marker.is_open:
            self._say('the recording ends within an episode whose end nobody marked')

    def _print(self, text: str) -> None:
        self._console.print(f'apt-record: {text}', markup=False, highlight=False, soft_wrap=True)


def _notes(recorder: Recorder, sink: WriterThread) -> Mapping[str, str]:
    """What the bag says of its own making."""
    lost = {watch.spec.label: watch.lost for watch in recorder.monitors if watch.lost}
    return {'lost_in_transport': json.dumps(lost), 'dropped_by_recorder': json.dumps(dict(sink.dropped)),
            'episodes': str(recorder.marker.episodes), 'discarded': str(recorder.marker.discarded),
            'simulated_time': json.dumps(recorder.has_simulated_time)}


def _print_report(recorder: Recorder, sink: WriterThread, console: Console) -> None:
    bag, marker = sink.bag, recorder.marker
    table = Table(title=f'{bag.folder}: {bag.bytes / 2**20:.1f} MiB in {len(bag.files)} files, '
                        f'{marker.episodes} episodes, {marker.discarded} discarded')
    for column in ('stream', 'received', 'written', 'dropped', 'lost before'):
        table.add_column(column, justify='left' if column == 'stream' else 'right')
    for watch in recorder.monitors:
        topic = recorder.resolve_topic_name(watch.spec.topic)
        if watch.received or sink.written[topic]:
            table.add_row(watch.spec.label, str(watch.received), str(sink.written[topic]),
                          str(sink.dropped[topic]), str(watch.lost))
    console.print(table)
    dropped, lost = sum(sink.dropped.values()), sum(watch.lost for watch in recorder.monitors)
    if dropped or lost:
        console.print(f'apt-record: {lost} messages were lost before they came here, {dropped} were dropped here',
                      style='bold red', markup=False, highlight=False)


if __name__ == '__main__':
    sys.exit(main())
