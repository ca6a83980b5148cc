// SPDX-License-Identifier: Apache-2.0
//
// The loop that hands a guest's accesses to a device.

public import Logging
public import MMIOForwarding
public import SystemPackage

/// Why a server returned.
public enum ServerEnd: Sendable, Hashable {
    /// The virtual machine is gone.
    case machineGone
    /// ``SharedDevice/stop()`` was called.
    case stopped
}

/// Serves one device from one transport: fetches requests, has the device carry them out, replies.
///
/// **Order.** Requests are carried out one at a time in the order in which the transport delivers them, also where
/// several servers, each on its own thread and with its own transport to the same requests, serve one
/// ``SharedDevice``. For the emulation descriptor that is the order in which KVM accepted them, across vCPUs, and so
/// the program order of each. A server fetches and executes while it has the *turn*; if another one waits for it, it
/// gives the turn up before it replies, so that one thread replies while the next executes. A server that is alone
/// replies and fetches in one call, and has one reply acknowledge all stores of a batch where the transport knows such.
///
/// **Size.** A device sees naturally aligned accesses of 1, 2, 4 or 8 bytes and nothing else. A request of 3, 5, 6 or
/// 7 bytes (half of an access that crosses a page), of 2, 4 or 8 bytes at an offset that is no multiple of that, or
/// wider than ``MMIODevice/widestAccess`` is split: in ascending order, each part the widest that alignment, what is
/// left and the device allow. 5 bytes at 0x1003 are 1 at 0x1003 and 4 at 0x1004. Loads are put together little
/// endian. Nothing else comes between the parts of a request.
///
/// **Faults.** Where a device throws an ``AccessFault``, a load reads all-ones and a store is dropped; of a split
/// request, only the part in question. A request that no guest can make (0 or more than 8 bytes, an end that 64 bits do
/// not hold, an unknown kind) does not reach the device: all-ones. Everything is counted, in ``ServerCounters``.
///
/// **Shadow memory.** Loads of the device's ``MMIODevice/shadow`` are answered by the transport where it can do that,
/// from when the server begins; otherwise by the server. The device sees none of them.
///
/// **Signals.** A signal handler that runs while the server waits changes nothing, unless ``SharedDevice/stop()`` was
/// called.
public struct DeviceServer<Device: MMIODevice & ~Copyable, Transport: RequestTransport & ~Copyable>: ~Copyable {
    /// Requests fetched at once unless said otherwise.
    public static var defaultBatch: Int { 64 }

    private let shared: SharedDevice<Device>
    private var transport: Transport
    private let observer: RequestObserver?
    private let logger: Logger
    private var staleReplies: UInt64
    // Allocated once: nothing is allocated for a request.
    private var requests: [ForwardedRequest]
    private var replies: [ForwardedReply]
    private var fewerReplies: [ForwardedReply]
    private var outcomes: [ServedRequest.Outcome]

    /// Serves a device that other servers, or the host's side, reach too.
    ///
    /// - Parameters:
    ///   - device: the device.
    ///   - transport: where requests come from; closed when the server returns.
    ///   - batch: most requests to fetch at once, at least 1.
    ///   - observer: sees every request with its reply.
    ///   - logger: is told when the server begins and ends.
    public init(
        _ device: SharedDevice<Device>, on transport: consuming Transport, batch: Int = Self.defaultBatch,
        observer: RequestObserver? = nil, logger: Logger = Logger(label: "DeviceEmulation")
    ) {
        let request = ForwardedRequest(sequence: 0, .load, offset: 0, length: 0)
        let batch = max(batch, 1)
        shared = device
        staleReplies = transport.staleReplies
        self.transport = transport
        self.observer = observer
        self.logger = logger
        requests = Array(repeating: request, count: batch)
        replies = Array(repeating: request.reply(), count: batch)
        fewerReplies = replies
        outcomes = Array(repeating: .done, count: batch)
    }

    /// Serves a device that nobody else reaches.
    ///
    /// - Parameters:
    ///   - device: the device.
    ///   - transport: where requests come from; closed when the server returns.
    ///   - batch: most requests to fetch at once, at least 1.
    ///   - observer: sees every request with its reply.
    ///   - logger: is told when the server begins and ends.
    public init(
        _ device: consuming sending Device, on transport: consuming Transport, batch: Int = Self.defaultBatch,
        observer: RequestObserver? = nil, logger: Logger = Logger(label: "DeviceEmulation")
    ) {
        self.init(SharedDevice(device), on: transport, batch: batch, observer: observer, logger: logger)
    }

    /// Serves on the calling thread until the virtual machine is gone or ``SharedDevice/stop()`` is called. It blocks.
    ///
    /// - Returns: why it returned. Nothing is owed by then.
    /// - Throws: errno of the transport: EAGAIN if its descriptor is non-blocking, EINVAL if it did not accept a reply.
    @discardableResult
    public consuming func run() throws(Errno) -> ServerEnd {
        let mask = shared.servers.enter()
        defer { shared.servers.leave(restoring: mask) }
        logger.debug("serving", metadata: ["device": "\(shared.label)"])
        placeShadow()
        do throws(Errno) {
            let end = try serve()
            logger.debug("done", metadata: ["device": "\(shared.label)", "because": "\(end)"])
            return end
        } catch {
            logger.error("serving failed", metadata: ["device": "\(shared.label)", "error": "\(error)"])
            throw error
        }
    }

    /// Has the transport answer what it can. Without that it all works as well.
    private mutating func placeShadow() {
        guard let shadow = shared.withDevice({ $0.shadow }) else { return }
        do throws(ForwardingError) {
            let isPlaced = try shadow.move(to: &transport)
            logger.debug("shadow registers", metadata: ["device": "\(shared.label)", "placed": "\(isPlaced)"])
        } catch {
            logger.warning(
                "no shadow memory, every load is a request",
                metadata: ["device": "\(shared.label)", "error": "\(error)"])
        }
    }

    private mutating func serve() throws(Errno) -> ServerEnd {
        while true {
            var turn = Turn.over(owed: 0)
            let shared = shared
            try shared.withTurn { () throws(Errno) in turn = try takeTurn() }
            switch turn {
            case .gone: return .machineGone
            case .over(let owed):
                defer { shared.settle() }
                try reply(owed)
            }
            if shared.servers.isStopping { return .stopped }
        }
    }

    /// How a turn ended.
    private enum Turn {
        /// With this many replies still to give.
        case over(owed: Int)
        /// The virtual machine is gone.
        case gone
    }

    /// Fetches and executes until another server wants the turn or all are to stop.
    private mutating func takeTurn() throws(Errno) -> Turn {
        var owed = 0
        // A stop must not find the server waiting, nor with its replies kept back.
        while !shared.servers.isStopping {
            do throws(Errno) {
                let count = try exchange(owed)
                if count <= 0 { return .gone }
                owed = count
            } catch .interrupted {
                owed = 0
                continue
            }
            execute(owed)
            if shared.isTurnWanted { break }
        }
        // A record counts on replies leaving in the order of execution.
        if shared.record != nil {
            try reply(owed)
            owed = 0
        }
        shared.owe()
        return .over(owed: owed)
    }

    /// Gives the first `owed` replies and fetches the next batch.
    private mutating func exchange(_ owed: Int) throws(Errno) -> Int {
        // Another server's stores must not be acknowledged for it.
        if owed > 1, transport.takesCumulativeReplies, !shared.isReplyUnderWay {
            let count = acknowledgeAtOnce(owed)
            return min(try transport.exchange(fewerReplies, first: count, for: &requests), requests.count)
        }
        return min(try transport.exchange(replies, first: owed, for: &requests), requests.count)
    }

    /// Leaves the loads and the last store of the first `owed` replies; gives how many these are.
    private mutating func acknowledgeAtOnce(_ owed: Int) -> Int {
        let last = replies.prefix(owed).lastIndex { $0.kind == .store }
        var count = 0
        for index in 0..<owed where replies[index].kind == .load || index == last {
            fewerReplies[count] = replies[index]
            fewerReplies[count].isCumulative = index == last
            count += 1
        }
        return count
    }

    /// Gives the first `owed` replies.
    private mutating func reply(_ owed: Int) throws(Errno) {
        guard owed > 0 else { return }
        try transport.give(replies, first: owed)
        var counters = ServerCounters()
        counters.staleReplies = newStaleReplies()
        shared.count(counters)
    }

    /// Has the device carry out the first `count` requests, prepares the replies, and tells the observer.
    private mutating func execute(_ count: Int) {
        var counters = ServerCounters()
        counters.batches = 1
        counters.largestBatch = count
        counters.staleReplies = newStaleReplies()
        let record = shared.record
        shared.withDevice { device in
            for index in 0..<count {
                let request = requests[index]
                let result =
                    record?.recall(request, counting: &counters)
                    ?? device.execute(request, counting: &counters)
                replies[index] = request.reply(result.value)
                outcomes[index] = result.outcome
            }
            shared.count(counters)
            record?.commit(device, replies.prefix(count), outcomes.prefix(count), shared.counters)
        }
        if let observer { show(count, to: observer) }
    }

    private borrowing func show(_ count: Int, to observer: RequestObserver) {
        for index in 0..<count {
            observer(ServedRequest(requests[index], replies[index], outcomes[index]))
        }
    }

    /// How many replies came too late since the last call.
    private mutating func newStaleReplies() -> UInt64 {
        let before = staleReplies
        staleReplies = transport.staleReplies
        return staleReplies &- before
    }
}

extension DeviceServer: Sendable where Device: ~Copyable, Transport: Sendable & ~Copyable {}

extension RequestTransport where Self: ~Copyable {
    /// Gives the first `owed` replies and waits for requests.
    fileprivate mutating func exchange(
        _ replies: [ForwardedReply], first owed: Int, for requests: inout [ForwardedRequest]
    ) throws(Errno) -> Int {
        var room = requests.mutableSpan
        return try exchange(replies.span.extracting(first: owed), for: &room)
    }

    /// Gives the first `owed` replies.
    fileprivate mutating func give(_ replies: [ForwardedReply], first owed: Int) throws(Errno) {
        var none = MutableSpan<ForwardedRequest>()
        _ = try exchange(replies.span.extracting(first: owed), for: &none)
    }
}
