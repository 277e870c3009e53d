"""One recording, from the check of the streams to the report.

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
from apt_policy.console import error_text
from apt_policy.core.contract import load_contract
from apt_policy.core.shipped import shipped_contract
from apt_policy.core.stop import stop_requests
from apt_policy.core.stream_spec import COMMAND_KINDS
from apt_policy.ros.callbacks import Callbacks
from apt_recorder.arguments import RecordArguments
from apt_recorder.bag_writer import BagConfig, BagError, BagWriter
from apt_recorder.episode_marker import EpisodeMarker
from apt_recorder.recorder import Recorder
from apt_recorder.repair import recover_bag
from apt_recorder.storage import BagStorage, Compression
from apt_recorder.streams import recorded_streams
from apt_recorder.terminal import KeyReader, RecordingDisplay, error_printer
from apt_recorder.type_definitions import TypeDefinitions
from apt_recorder.writer_thread import WriterThread

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
    bag_config = _bag_config(arguments)
    contract = load_contract(arguments.contract or shipped_contract('aloha.yaml'))
    specs = recorded_streams(contract, without=arguments.without)
    definitions = TypeDefinitions()
    for spec in specs:
        definitions.definition(spec.type_name)
    with stop_requests() as stop:
        rclpy.init(args=list(ros_args), signal_handler_options=SignalHandlerOptions.NO)
        recorder = Recorder(specs, marker=EpisodeMarker(per_prompt=arguments.episode_per_prompt),
                            min_rate=arguments.min_rate, unstamped=arguments.stamp_on_receipt,
                            report=error_printer(console))
        try:
            with Callbacks(recorder, stop), KeyReader() as keys:
                return _Session(arguments, bag_config, recorder, definitions, stop, keys, console).run()
        finally:
            recorder.destroy_node()
            rclpy.try_shutdown()


def _bag_config(arguments: RecordArguments) -> BagConfig:
    try:
        return BagConfig(
            storage=BagStorage(arguments.storage), compression=Compression(arguments.compress),
            max_bytes=round(arguments.max_size * _MIB), max_ns=round(arguments.split * 1e9),
            min_free_bytes=round(arguments.min_free * _MIB))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _recover(arguments: RecordArguments, console: Console) -> int:
    assert arguments.bag is not None, 'the arguments say so'
    for part in recover_bag(arguments.bag):
        console.print(f'{part.name}: {part.messages} messages', markup=False, highlight=False)
    return 0


class _Session:
    """One recording, from the check of the streams to the report."""

    def __init__(self, arguments: RecordArguments, bag_config: BagConfig, recorder: Recorder,
                 definitions: TypeDefinitions, stop: Event, keys: KeyReader, console: Console) -> None:
        self._arguments, self._bag_config = arguments, bag_config
        self._folder = arguments.bag or Path(f'apt_{time.strftime("%Y_%m_%d-%H_%M_%S")}')
        self._recorder, self._definitions, self._stop = recorder, definitions, stop
        self._keys, self._console, self._say = keys, console, error_printer(console)

    def run(self) -> int:
        """Record and return the exit status."""
        if not self._streams_flow():
            return 0 if self._stop.is_set() else 1
        try:
            bag = BagWriter(self._folder, self._bag_config, self._definitions)
        except BagError as error:
            self._say(str(error))
            return 1
        writer = WriterThread(bag, capacity_bytes=round(self._arguments.queue * _MIB), report=self._say)
        self._recorder.start(writer)
        self._print(f'recording into {bag.folder}'
                    f'{", in simulated time" if self._recorder.has_simulated_time else ""}')
        self._warn_of_missing_commands()
        is_complete = True
        try:
            self._record(writer)
        except OSError as error:
            # The arguments were fine, so the status is not that of a usage error.
            self._say(error_text(error))
            is_complete = False
        finally:
            self._end_episode()
            self._recorder.stop()
            writer.close(lambda: _notes(self._recorder, writer))
            _print_report(self._recorder, writer, self._console)
        return 0 if is_complete and not writer.failure else 1

    def _streams_flow(self) -> bool:
        """Return whether every stream flows as in the contract, within the time that the user allows."""
        began = told = time.monotonic()
        while not self._stop.is_set():
            elapsed_s = time.monotonic() - began
            problems = self._recorder.stream_problems()
            if elapsed_s >= _MEASURE_S and not problems:
                return True
            if elapsed_s > max(self._arguments.wait, _MEASURE_S):
                break
            if time.monotonic() - told > 2.0:
                told = time.monotonic()
                self._print(f'waiting for {len(problems)} streams: {problems[0] if problems else ""}')
            time.sleep(_LOOK_S)
        if not self._stop.is_set():
            self._say('not recording, because streams are missing:\n  '
                      + '\n  '.join(self._recorder.stream_problems())
                      + '\n  (--without NAME leaves a stream out, --wait S waits longer)')
        return False

    def _warn_of_missing_commands(self) -> None:
        watches = [watch for watch in self._recorder.monitors if watch.spec.kind in COMMAND_KINDS]
        if watches and not any(watch.publishers for watch in watches):
            self._say('no publisher of targets or joint commands: episodes will be labelled with measured '
                      'poses, which lag behind the commands')

    def _record(self, writer: WriterThread) -> None:
        arguments, recorder = self._arguments, self._recorder
        began_ns = recorder.now_ns()
        with RecordingDisplay(recorder, writer, self._console, hint=_HINT if self._keys.available else '') as show:
            while not self._stop.is_set() and writer.failure is None:
                elapsed_s = (recorder.now_ns() - began_ns) / 1e9
                if (arguments.duration and elapsed_s >= arguments.duration) or (
                        arguments.episodes and recorder.marker.episodes >= arguments.episodes):
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
            self._say('the recording ended within an episode that has no end mark')

    def _print(self, text: str) -> None:
        self._console.print(f'apt-record: {text}', markup=False, highlight=False, soft_wrap=True)


def _notes(recorder: Recorder, writer: WriterThread) -> Mapping[str, str]:
    """Return facts about the recording for the metadata of the bag."""
    lost = {watch.spec.label: watch.lost for watch in recorder.monitors if watch.lost}
    return {'lost_in_transport': json.dumps(lost), 'dropped_by_recorder': json.dumps(dict(writer.dropped)),
            'episodes': str(recorder.marker.episodes), 'discarded': str(recorder.marker.discarded),
            'simulated_time': json.dumps(recorder.has_simulated_time)}


def _print_report(recorder: Recorder, writer: WriterThread, console: Console) -> None:
    bag, marker = writer.bag, recorder.marker
    table = Table(title=f'{bag.folder}: {bag.bytes / 2**20:.1f} MiB in {len(bag.files)} files, '
                        f'{marker.episodes} episodes, {marker.discarded} discarded')
    for column in ('stream', 'received', 'written', 'dropped', 'lost before'):
        table.add_column(column, justify='left' if column == 'stream' else 'right')
    for watch in recorder.monitors:
        topic = recorder.resolve_topic_name(watch.spec.topic)
        if watch.received or writer.written[topic]:
            table.add_row(watch.spec.label, str(watch.received), str(writer.written[topic]),
                          str(writer.dropped[topic]), str(watch.lost))
    console.print(table)
    dropped, lost = sum(writer.dropped.values()), sum(watch.lost for watch in recorder.monitors)
    if dropped or lost:
        console.print(f'apt-record: {lost} messages were lost before they came here, {dropped} were dropped here',
                      style='bold red', markup=False, highlight=False)
