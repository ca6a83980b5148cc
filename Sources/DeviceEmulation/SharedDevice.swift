// SPDX-License-Identifier: Apache-2.0
//
// A device that several threads reach: its servers, and whoever feeds it from the host's side.

import Synchronization

/// A device with the locks that let several ``DeviceServer``s, and the host's side, share it.
///
/// Two locks, taken in this order:
/// 1. the *turn*: held by the one server that fetches requests and carries them out, the wait for them included.
///    It makes the order of delivery the order of execution.
/// 2. the device: held for one batch, or one ``withDevice(_:)``. Never held during a wait, so the host's side gets
///    at the device while every server waits for the guest.
public final class SharedDevice<Device: MMIODevice & ~Copyable>: Sendable {
    /// What the device calls itself.
    public let label: String

    /// What outlives this process; reached while the device's lock is held.
    let record: DeviceRecord?

    private let device: Mutex<Device>
    private let tally: Mutex<ServerCounters>
    private let turn = Mutex(())
    private let waitingForTurn = Atomic(0)
    private let repliesUnderWay = Atomic(0)
    /// The threads in ``DeviceServer/run()``, and the request to leave it.
    let servers = RunningServers()

    /// Shares a device.
    ///
    /// - Parameters:
    ///   - device: the device, which from here on is reached through this value alone.
    ///   - record: what an earlier process left of the device, which takes that up, and where this one writes down
    ///     what it does.
    public init(_ device: consuming sending Device, record: DeviceRecord? = nil) {
        label = device.label
        self.record = record
        tally = Mutex(record?.counters ?? ServerCounters())
        record?.restore(&device)
        self.device = Mutex(device)
    }

    /// What all servers of the device have done so far. Any thread may ask, at any time.
    public var counters: ServerCounters {
        tally.withLock { $0 }
    }

    /// Runs `body` while no access is being carried out: how the host's side feeds a device or looks at it.
    ///
    /// - Parameter body: gets the device. It must not call back into this value.
    /// - Returns: what `body` returns.
    /// - Throws: what `body` throws.
    public func withDevice<Result: ~Copyable, Failure: Error>(
        _ body: (inout sending Device) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result {
        try device.withLock(body)
    }

    /// Makes every server of the device return ``ServerEnd/stopped``, and waits until they have.
    ///
    /// A server finishes the batch that it is at, replies included. A server that waits for requests is woken by the
    /// signal SIGURG, which is sent until it has left: nothing is lost if it comes a moment too early. (A handler
    /// that does nothing is installed for it, unless the process has its own; that one must not be SA_RESTART.)
    /// Called on a server's own thread, by a device or an observer, it does not wait for that server. Servers that
    /// are started later return at once.
    public func stop() {
        servers.stop()
    }

    /// Runs `body` as the only server that fetches and carries out requests.
    func withTurn<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) {
        waitingForTurn.add(1, ordering: .relaxed)
        try turn.withLock { _ throws(Failure) in
            waitingForTurn.subtract(1, ordering: .relaxed)
            try body()
        }
    }

    /// Whether another server waits for its turn. It may come or be gone a moment later.
    var isTurnWanted: Bool {
        waitingForTurn.load(ordering: .relaxed) > 0
    }

    /// A server is about to give up its turn with replies to give.
    func owe() {
        repliesUnderWay.add(1, ordering: .relaxed)
    }

    /// It has given them.
    func settle() {
        repliesUnderWay.subtract(1, ordering: .releasing)
    }

    /// Whether a server without the turn may owe replies. Asked by the one with the turn: none comes meanwhile.
    var isReplyUnderWay: Bool {
        repliesUnderWay.load(ordering: .acquiring) > 0
    }

    /// Adds what a server did.
    func count(_ more: ServerCounters) {
        tally.withLock { $0.add(more) }
    }
}
