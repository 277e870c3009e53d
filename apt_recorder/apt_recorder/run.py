"""One recording, from the first look at the streams to the report.

It does not start while a stream is silent, slow or stale, ends cleanly on Ctrl-C, SIGTERM and a full disk,
and reports what was received beside what was written.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event

import rclpy
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.table import Table

from apt_policy.cli import UsageError
from apt_policy.core.contract import load_contract
from apt_policy.core.shipped import shipped_contract
from apt_policy.core.stop import stop_requests
from apt_policy.core.stream_spec import COMMAND_KINDS
from apt_policy.ros.callbacks import Callbacks
from apt_recorder.arguments import RecordArguments
from apt_recorder.bag import Bag, BagError, BagSettings
from apt_recorder.definitions import Definitions
from apt_recorder.keys import Keys
from apt_recorder.marks import Marker
from apt_recorder.recorder import Recorder
from apt_recorder.repair import recover
from apt_recorder.show import Show, speaker
from apt_recorder.sink import Sink
from apt_recorder.storage import Compression, Storage
from apt_recorder.streams import streams_of

_MIB = 2**20
_LOOK_S = 0.05
# Rates mean something only after they were measured for a while.
_MEASURE_S = 1.5
_HINT = 'space: begin or end an episode, d: discard it, q: end the recording'


def record(arguments: RecordArguments, *, ros_args: Sequence[str] = ()) -> int:
    """Record until Ctrl-C, SIGTERM, a limit, or a full disk.

    Args:
        arguments: what the command line asks for.
        ros_args: arguments for rclpy, from ``--ros-args`` on.

    Returns:
        0 for a whole recording, 1 if it could not start, or could not write all.

    Raises:
        UserError: contract, selection of streams or values cannot be used.
    """
    console = Console(stderr=True)
    if arguments.recover:
        return _recover(arguments, console)
    bag_settings = _bag_settings(arguments)
    specs = streams_of(load_contract(arguments.contract or shipped_contract('aloha.yaml')), without=arguments.without)
    definitions = Definitions()
    for spec in specs:
        definitions.of(spec.type_name)
    with stop_requests() as stop:
        rclpy.init(args=list(ros_args), signal_handler_options=SignalHandlerOptions.NO)
        recorder = Recorder(specs, marker=Marker(per_prompt=arguments.episode_per_prompt), min_rate=arguments.min_rate,
                            unstamped=arguments.stamp_on_receipt, report=speaker(console))
        try:
            with Callbacks(recorder, stop), Keys() as keys:
                return _Session(arguments, bag_settings, recorder, definitions, stop, keys, console).run()
        finally:
            recorder.destroy_node()
            rclpy.try_shutdown()


def _bag_settings(arguments: RecordArguments) -> BagSettings:
    try:
        return BagSettings(
            storage=Storage(arguments.storage), compression=Compression(arguments.compress),
            max_bytes=round(arguments.max_size * _MIB), max_ns=round(arguments.split * 1e9),
            min_free_bytes=round(arguments.min_free * _MIB))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _recover(arguments: RecordArguments, console: Console) -> int:
    assert arguments.bag is not None, 'the arguments say so'
    for part in recover(arguments.bag):
        console.print(f'{part.name}: {part.messages} messages', markup=False, highlight=False)
    return 0


class _Session:
    """One recording from the first look at the streams to the report."""

    def __init__(self, arguments: RecordArguments, bag_settings: BagSettings, recorder: Recorder,
                 definitions: Definitions, stop: Event, keys: Keys, console: Console) -> None:
        self._arguments, self._bag_settings = arguments, bag_settings
        self._folder = arguments.bag or Path(f'apt_{time.strftime("%Y_%m_%d-%H_%M_%S")}')
        self._recorder, self._definitions, self._stop = recorder, definitions, stop
        self._keys, self._console, self._say = keys, console, speaker(console)

    def run(self) -> int:
        """The exit status."""
        if not self._streams_are_well():
            return 0 if self._stop.is_set() else 1
        try:
            bag = Bag(self._folder, self._bag_settings, self._definitions)
        except BagError as error:
            self._say(str(error))
            return 1
        sink = Sink(bag, capacity_bytes=round(self._arguments.queue * _MIB), report=self._say)
        self._recorder.start(sink)
        self._print(f'recording into {bag.folder}'
                    f'{", in simulated time" if self._recorder.simulated else ""}')
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
            complaints = self._recorder.complaints()
            if elapsed_s >= _MEASURE_S and not complaints:
                return True
            if elapsed_s > max(self._arguments.wait, _MEASURE_S):
                break
            if time.monotonic() - told > 2.0:
                told = time.monotonic()
                self._print(f'waiting for {len(complaints)} streams: {complaints[0] if complaints else ""}')
            time.sleep(_LOOK_S)
        if not self._stop.is_set():
            self._say('not recording, since what would be missing makes the bag worthless:\n  '
                      + '\n  '.join(self._recorder.complaints())
                      + '\n  (--without NAME leaves a stream out, --wait S waits longer)')
        return False

    def _warn_of_missing_commands(self) -> None:
        watches = [watch for watch in self._recorder.watches if watch.spec.kind in COMMAND_KINDS]
        if watches and not any(watch.publishers for watch in watches):
            self._say('nobody publishes targets or joint commands: episodes will be labelled with the poses that '
                      'the arms reached, which lag behind what was meant')

    def _record(self, sink: Sink) -> None:
        arguments, recorder = self._arguments, self._recorder
        began_ns = recorder.now_ns()
        with Show(recorder, sink, self._console, hint=_HINT if self._keys.available else '') as show:
            while not self._stop.is_set() and sink.failure is None:
                elapsed_s = (recorder.now_ns() - began_ns) / 1e9
                if (arguments.duration and elapsed_s >= arguments.duration) or (
                        arguments.episodes and recorder.marker.episodes >= arguments.episodes):
                    break
                for key in self._keys.pressed():
                    if key == 'q':
                        return
                    recorder.mark(recorder.marker.key(key))
                show.update(elapsed_s)
                time.sleep(_LOOK_S)

    def _end_episode(self) -> None:
        """Mark the end of an episode of this recorder's own, and wait until the mark is recorded."""
        self._recorder.mark(self._recorder.marker.at_the_end())
        deadline = time.monotonic() + 2.0
        while not self._recorder.marker.settled and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        if self._recorder.marker.open:
            self._say('the recording ends within an episode whose end nobody marked')

    def _print(self, text: str) -> None:
        self._console.print(f'apt-record: {text}', markup=False, highlight=False, soft_wrap=True)


def _notes(recorder: Recorder, sink: Sink) -> Mapping[str, str]:
    """What the bag says of its own making."""
    lost = {watch.spec.label: watch.lost for watch in recorder.watches if watch.lost}
    return {'lost_in_transport': json.dumps(lost), 'dropped_by_recorder': json.dumps(dict(sink.dropped)),
            'episodes': str(recorder.marker.episodes), 'discarded': str(recorder.marker.discarded),
            'simulated_time': json.dumps(recorder.simulated)}


def _print_report(recorder: Recorder, sink: Sink, console: Console) -> None:
    bag, marker = sink.bag, recorder.marker
    table = Table(title=f'{bag.folder}: {bag.bytes / 2**20:.1f} MiB in {len(bag.parts)} files, '
                        f'{marker.episodes} episodes, {marker.discarded} discarded')
    for column in ('stream', 'received', 'written', 'dropped', 'lost before'):
        table.add_column(column, justify='left' if column == 'stream' else 'right')
    for watch in recorder.watches:
        topic = recorder.resolve_topic_name(watch.spec.topic)
        if watch.received or sink.written[topic]:
            table.add_row(watch.spec.label, str(watch.received), str(sink.written[topic]),
                          str(sink.dropped[topic]), str(watch.lost))
    console.print(table)
    dropped, lost = sum(sink.dropped.values()), sum(watch.lost for watch in recorder.watches)
    if dropped or lost:
        console.print(f'apt-record: {lost} messages were lost before they came here, {dropped} were dropped here',
                      style='bold red', markup=False, highlight=False)
