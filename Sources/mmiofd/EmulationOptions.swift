// SPDX-License-Identifier: Apache-2.0
//
// What `emulate` and `trace` have in common: the options, and the report at the end.

import ArgumentParser
import DeviceEmulation
import ForwardingProcesses
import Glibc
import JSONText
import LinuxSystem
import Logging

/// How a device is served.
struct EmulationOptions: ParsableArguments {
    @OptionGroup var socket: SocketOptions

    @Option(
        help: ArgumentHelp(
            "How long to wait for a VMM that is not there yet, and then for its device.", valueName: "seconds"))
    var wait = 5.0

    @Option(help: "How many threads serve the device.")
    var threads = 1

    @Option(help: "How many requests a thread takes at once, at most.")
    var batch = 64

    @Flag(help: "Take requests from a ring in shared memory; with one thread.")
    var ring = false

    @Option(help: ArgumentHelp("Wake a thread once for so many posted stores.", valueName: "stores"))
    var coalesce: UInt32?

    @Option(
        help: ArgumentHelp(
            "With --coalesce: how long a store may wait for others. (default: 100)", valueName: "microseconds"))
    var coalesceTime: Double?

    func validate() throws {
        guard !ring || threads == 1 else { throw ValidationError("--ring serves one thread; leave --threads out") }
        guard coalesce != 0 else { throw ValidationError("--coalesce must be 1 or more") }
        guard (0.001...1e6).contains(coalesceMicroseconds) else {
            throw ValidationError("--coalesce-time must be 0.001 to 1000000 microseconds, one second")
        }
        guard coalesce != nil || coalesceTime == nil else {
            throw ValidationError("--coalesce-time without --coalesce does nothing; give both, or neither")
        }
        guard (0...1e9).contains(wait) else { throw ValidationError("--wait must be 0 or more seconds") }
        guard (1...256).contains(threads) else { throw ValidationError("--threads must be 1 to 256") }
        guard (1...65536).contains(batch) else { throw ValidationError("--batch must be 1 to 65536") }
    }

    /// Serves a device until the virtual machine is gone or a signal comes.
    func serve(
        _ device: DeviceName, usesShadow: Bool, logger: Logger, observer: RequestObserver? = nil
    ) throws -> EmulationSession.Report {
        try session(device, usesShadow: usesShadow).run(
            at: socket.path, waiting: .seconds(wait), observer: observer, logger: logger)
    }

    private var coalesceMicroseconds: Double { coalesceTime ?? 100 }

    private func session(_ device: DeviceName, usesShadow: Bool) -> EmulationSession {
        let coalescing = coalesce.map {
            RequestDelivery.Coalescing(stores: $0, time: .microseconds(coalesceMicroseconds))
        }
        return EmulationSession(
            device.device, threads: threads, batch: batch,
            delivery: RequestDelivery(usesShadow: usesShadow, usesRing: ring, coalescing: coalescing))
    }

    /// These options as arguments, but for those of who waits where.
    var arguments: [String] {
        ["--threads", "\(threads)", "--batch", "\(batch)"] + (ring ? ["--ring"] : [])
            + (coalesce.map { ["--coalesce", "\($0)", "--coalesce-time", "\(coalesceMicroseconds)"] } ?? [])
    }

    /// Serves a device for the supervisor that is this process's parent. A status other than 0 says that the device
    /// still needs a process.
    func serveSupervised(_ device: DeviceName, usesShadow: Bool, logger: Logger) throws {
        let socket = UnixSocket(adopting: OwnedDescriptor(adopting: STDIN_FILENO))
        let report = try session(device, usesShadow: usesShadow).run(supervisedOver: socket, logger: logger)
        if report.end != .machineGone { throw ExitCode.failure }
    }
}

extension EmulationSession.Report {
    /// The counters by their names in JSON.
    private var counts: KeyValuePairs<String, UInt64> {
        [
            "loads": counters.loads, "stores": counters.stores, "splits": counters.splits,
            "no_register": counters.noRegister, "unsupported_width": counters.unsupportedWidth,
            "read_only": counters.readOnly, "write_only": counters.writeOnly, "malformed": counters.malformed,
            "redelivered": counters.redelivered, "stale_replies": counters.staleReplies, "batches": counters.batches,
            "largest_batch": UInt64(clamping: counters.largestBatch),
        ]
    }

    private var reason: String {
        switch end {
        case .machineGone: "machine_gone"
        case .stopped: "stopped"
        }
    }

    private var jsonCounts: JSONValue {
        let counts = counts.map { ($0.key, JSONValue.integer(Int(clamping: $0.value))) }
        return .dictionary(Dictionary(uniqueKeysWithValues: counts))
    }

    /// What came of the session, as an object.
    var json: JSONValue {
        .object(["end": .string(reason), "counters": jsonCounts])
    }

    /// What came of the sessions of several processes, as an object.
    func json(restarts: Int) -> JSONValue {
        .object(["end": .string(reason), "counters": jsonCounts, "restarts": .integer(restarts)])
    }

    /// What came of the session, as a table.
    var text: String {
        let width = counts.map(\.key.count).max() ?? 0
        let rows = counts.map { name, count in
            let spaces = String(repeating: " ", count: width - name.count)
            return "\(name.replacing("_", with: " "))\(spaces)  \(count)"
        }
        let ending =
            switch end {
            case .machineGone: "the virtual machine is gone"
            case .stopped: "stopped by a signal"
            }
        return ([ending] + rows).joined(separator: "\n")
    }
}
