// SPDX-License-Identifier: Apache-2.0
//
// What the guest does.

import GuestPrograms

/// What the guest does, again and again.
public enum Operation: Hashable, Sendable {
    /// Stores, one after the other.
    case store
    /// Loads, one after the other.
    case load
    /// So many stores, after which the guest waits until all have been carried out.
    case burst(Int)
    /// A store and a load by turns.
    case storeLoad
    /// Loads and stores of random width and place.
    case mixed

    /// Reads a name such as "burst-64".
    public init?(_ name: String) {
        switch name {
        case "store": self = .store
        case "load": self = .load
        case "store-load": self = .storeLoad
        case "mixed": self = .mixed
        default:
            guard name.hasPrefix("burst-"), let count = Int(name.dropFirst(6)), (1...1000).contains(count) else {
                return nil
            }
            self = .burst(count)
        }
    }

    /// Whether some of the accesses are loads.
    public var loads: Bool { [.load, .storeLoad, .mixed].contains(self) }

    /// The two runs whose difference is the cost of the accesses.
    struct Work: Hashable {
        /// The guest program.
        let program: GuestProgram
        /// What it does in the run that is measured.
        let full: Extent
        /// What it does in the run that is subtracted: the same without the accesses.
        let empty: Extent
        /// How many accesses the full run makes.
        let accesses: Int
        /// How many of them are stores; nil where the program chooses.
        let stores: Int?
        /// Whether the program records what it loads, all of it from one register.
        var recordsLoads = false
    }

    /// A program's count and window.
    struct Extent: Hashable {
        var count: Int
        var window: UInt64
        /// How many stores each fence comes after.
        var storesPerFence = 0
    }

    /// About `count` accesses of this kind.
    func work(count: Int, width: GuestProgram.Width, bus: GuestProgram.Bus) -> Work {
        switch self {
        case .store:
            bursts(rounds: 1, of: count, width, bus)
        case .burst(let size):
            bursts(rounds: max(1, count / size), of: size, width, bus)
        case .load:
            Work(
                program: bus == .memory ? .loadLoop(width) : .portLoadLoop(width),
                full: Extent(count: count, window: 8), empty: Extent(count: 0, window: 8), accesses: count, stores: 0,
                recordsLoads: true)
        case .storeLoad:
            Work(
                program: .storeLoadPairs(width), full: Extent(count: (count + 1) / 2, window: 8),
                empty: Extent(count: 0, window: 8), accesses: (count + 1) / 2 * 2, stores: (count + 1) / 2)
        case .mixed:
            Work(
                program: .mixedAligned, full: Extent(count: count, window: 64), empty: Extent(count: 0, window: 64),
                accesses: count, stores: nil)
        }
    }

    /// Accesses of this kind one by one, by the guest's clock; nil where no program times them.
    ///
    /// - Parameter interval: ticks of the TSC between them; 0 for none.
    func timedWork(count: Int, interval: UInt64, width: GuestProgram.Width, bus: GuestProgram.Bus) -> Work? {
        let isLoad = self == .load
        guard isLoad || self == .store else { return nil }
        return Work(
            program: isLoad ? .timedLoads(width, on: bus) : .timedStores(width, on: bus),
            full: Extent(count: count, window: interval, storesPerFence: isLoad ? 0 : count),
            empty: Extent(count: 0, window: interval), accesses: count, stores: isLoad ? 0 : count)
    }

    private func bursts(rounds: Int, of size: Int, _ width: GuestProgram.Width, _ bus: GuestProgram.Bus) -> Work {
        Work(
            program: .storeBursts(width, on: bus),
            full: Extent(count: rounds, window: UInt64(size), storesPerFence: size),
            empty: Extent(count: rounds, window: 0), accesses: rounds * size, stores: rounds * size)
    }
}

extension Operation: CustomStringConvertible {
    /// Its name.
    public var description: String {
        switch self {
        case .store: "store"
        case .load: "load"
        case .burst(let size): "burst-\(size)"
        case .storeLoad: "store-load"
        case .mixed: "mixed"
        }
    }
}
