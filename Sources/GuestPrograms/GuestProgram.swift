// SPDX-License-Identifier: Apache-2.0
//
// The guest programs by name: their code, and which accesses they make.

import CGuestPrograms

/// A program for a vCPU that accesses a device; 64-bit code, the same at any address, for any number of vCPUs at once.
///
/// Its source is in `Sources/CGuestPrograms`, and `guest.h` there says what it finds in its registers and what it
/// leaves in guest RAM. ``GuestMachine`` sets that up and reads it. It ends with a byte to port ``endPort``.
public struct GuestProgram: Hashable, Sendable {
    /// The name of its labels in the assembly source, "store_4" say.
    public let name: String
    /// The code.
    public let code: [UInt8]
    let behaviour: Behaviour

    /// What decides a program's accesses.
    enum Behaviour: Hashable, Sendable {
        case stores(Width)
        case loads(Width)
        case pairs(Width)
        case mixed(aligned: Bool)
        case straddling
        case sixteen
        case stringStores(Width)
        case stringCopyOut(Width)
        case stringCopyIn(Width)
        case outs(Width)
        case stringOuts(Width)
        case ins(Width)
        case mailbox
        case script
        case bursts
        case timed
    }

    /// How many bytes an access has.
    public enum Width: Int, CaseIterable, Sendable {
        /// 1 byte.
        case one = 1
        /// 2 bytes.
        case two = 2
        /// 4 bytes.
        case four = 4
        /// 8 bytes; ports have no such accesses.
        case eight = 8

        /// The widths that ports have.
        public static let ports: [Width] = [.one, .two, .four]
    }

    /// What a program finds in its registers.
    public struct Arguments: Hashable, Sendable {
        /// First address of the device, or its port.
        public var target: UInt64
        /// How many accesses or rounds.
        public var count: Int
        /// What the values begin with.
        public var seed: UInt64
        /// How many bytes from ``target`` on a program may access, for the mixed ones; at least 8.
        public var window: UInt64

        /// Takes the four.
        ///
        /// - Parameters:
        ///   - target: first address of the device, or its port.
        ///   - count: how many accesses or rounds, as the program says; 0 or more.
        ///   - seed: what the values begin with.
        ///   - window: for the mixed programs, at least 8 bytes.
        public init(target: UInt64, count: Int, seed: UInt64 = 0, window: UInt64 = 4096) {
            self.target = target
            self.count = count
            self.seed = seed
            self.window = window
        }
    }

    /// The port to which a program writes a byte at its end: 0xf4.
    ///
    /// Not HLT, since with interrupt controllers in the kernel that does not exit.
    public static let endPort: UInt16 = 0xf4

    // MARK: The programs

    /// `count` stores to `target`: of seed, seed + 1 and so on.
    public static func storeLoop(_ width: Width) -> GuestProgram { of("store_\(width.rawValue)", .stores(width)) }

    /// `count` loads from `target`.
    public static func loadLoop(_ width: Width) -> GuestProgram { of("load_\(width.rawValue)", .loads(width)) }

    /// `count` times a store to `target`, of seed, seed + 1 and so on, and a load from there.
    public static func storeLoadPairs(_ width: Width) -> GuestProgram { of("pair_\(width.rawValue)", .pairs(width)) }

    /// `count` loads and stores of pseudo-random width, place in the window and value, at any alignment.
    public static let mixed = of("mixed", .mixed(aligned: false))

    /// The same, but every access is naturally aligned to the target.
    public static let mixedAligned = of("mixed_aligned", .mixed(aligned: true))

    /// `count` rounds of a store and a load in each way in which 2, 4 or 8 bytes can begin before `target` and end
    /// after it: page-crossing ones if that is the beginning of a page, and unaligned ones otherwise.
    public static let straddling = of("straddle", .straddling)

    /// How many store and load pairs a round of ``straddling`` has.
    public static let straddlingPairs = 11

    /// `count` rounds of a 16-byte store and load with MOVDQU, and the same with MOVUPS, all at `target`.
    public static let sixteenBytes = of("sixteen", .sixteen)

    /// REP STOS: `count` elements of the seed to `target` and up.
    public static func stringStores(_ width: Width) -> GuestProgram {
        of("rep_stos_\(width.rawValue)", .stringStores(width))
    }

    /// REP MOVS from RAM: `count` elements of seed, seed + 1 and so on to `target` and up.
    public static func stringCopyOut(_ width: Width) -> GuestProgram {
        of("rep_movs_out_\(width.rawValue)", .stringCopyOut(width))
    }

    /// REP MOVS to RAM: `count` elements from `target` and up.
    public static func stringCopyIn(_ width: Width) -> GuestProgram {
        of("rep_movs_in_\(width.rawValue)", .stringCopyIn(width))
    }

    /// OUT: `count` times to port `target`, of seed, seed + 1 and so on.
    ///
    /// - Parameter width: not eight.
    public static func portStoreLoop(_ width: Width) -> GuestProgram { of("out_\(width.rawValue)", .outs(width)) }

    /// IN: `count` times from port `target`.
    ///
    /// - Parameter width: not eight.
    public static func portLoadLoop(_ width: Width) -> GuestProgram { of("in_\(width.rawValue)", .ins(width)) }

    /// REP OUTS: `count` elements to port `target`, of seed, seed + 1 and so on.
    ///
    /// - Parameter width: not eight.
    public static func portStringStores(_ width: Width) -> GuestProgram {
        of("rep_outs_\(width.rawValue)", .stringOuts(width))
    }

    /// REP INS: `count` elements from port `target`.
    ///
    /// - Parameter width: not eight.
    public static func portStringLoads(_ width: Width) -> GuestProgram {
        of("rep_ins_\(width.rawValue)", .ins(width))
    }

    /// Makes the accesses that ``GuestMailbox`` asks for, until it asks for the end.
    public static let mailbox = of("mailbox", .mailbox)

    /// Makes the accesses that ``GuestScript`` lists, one after the other, until it lists the end; `count` is how many
    /// the list has room for.
    public static let script = of("script", .script)

    /// Memory or ports.
    public enum Bus: Sendable {
        /// Memory.
        case memory
        /// Ports.
        case port
    }

    /// `count` rounds of stores to `target`, of seed, seed + 1 and so on, as many as `window` says, and a fence: a load
    /// of 4 bytes ``fenceDistance(_:)`` beyond `target`.
    ///
    /// - Parameters:
    ///   - width: on the port bus not eight.
    ///   - bus: where `target` is.
    public static func storeBursts(_ width: Width, on bus: Bus = .memory) -> GuestProgram {
        of(bus == .memory ? "burst_\(width.rawValue)" : "burst_out_\(width.rawValue)", .bursts)
    }

    /// `count` loads from `target`, and a fence as ``storeBursts(_:on:)`` has it. The values recorded are not what was
    /// loaded, but how many ticks of the guest's TSC each load took.
    ///
    /// Each begins `window` ticks after the one before was due, and is measured from when it was due, whenever the guest
    /// came to it; with a `window` of 0 it begins at once.
    ///
    /// - Parameters:
    ///   - width: on the port bus not eight.
    ///   - bus: where `target` is.
    public static func timedLoads(_ width: Width, on bus: Bus = .memory) -> GuestProgram {
        of(bus == .memory ? "timed_load_\(width.rawValue)" : "timed_in_\(width.rawValue)", .timed)
    }

    /// The same with stores, of seed, seed + 1 and so on: measured is until the guest goes on.
    public static func timedStores(_ width: Width, on bus: Bus = .memory) -> GuestProgram {
        of(bus == .memory ? "timed_store_\(width.rawValue)" : "timed_out_\(width.rawValue)", .timed)
    }

    /// How far beyond its target a program's fence lies.
    public static func fenceDistance(_ bus: Bus) -> UInt64 { bus == .memory ? 0x1000 : 8 }

    /// The port to which ``script`` writes a byte when it has nothing to do: 0xf5.
    public static let idlePort: UInt16 = 0xf5

    /// Every program but ``script``, whose accesses no arguments name, and those that are for measuring.
    public static let all: [GuestProgram] =
        [mixed, mixedAligned, straddling, sixteenBytes, mailbox]
        + Width.allCases.flatMap {
            [storeLoop($0), loadLoop($0), storeLoadPairs($0), stringStores($0), stringCopyOut($0), stringCopyIn($0)]
        }
        + Width.ports.flatMap {
            [portStoreLoop($0), portLoadLoop($0), portStringStores($0), portStringLoads($0)]
        }

    private static func of(_ name: String, _ behaviour: Behaviour) -> GuestProgram {
        guard let code = codes[name] else { preconditionFailure("there is no guest program \(name)") }
        return GuestProgram(name: name, code: code, behaviour: behaviour)
    }

    private static let codes: [String: [UInt8]] = {
        var codes: [String: [UInt8]] = [:]
        for position in 0..<cguest_program_count() {
            let program = unsafe cguest_program_at(position)
            // SAFETY: the C target gives a program's first byte and its size.
            let bytes = unsafe UnsafeBufferPointer(start: program.code, count: program.count)
            codes[unsafe String(cString: program.name)] = unsafe [UInt8](bytes)
        }
        return codes
    }()
}

extension GuestProgram: CustomStringConvertible {
    /// The program's name.
    public var description: String { name }
}
