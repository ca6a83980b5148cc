// SPDX-License-Identifier: Apache-2.0
//
// Whether cost grows with the number of something.

/// What there can be more of.
enum Scaling: CaseIterable {
    case ranges, devices, vcpus

    /// Its name in a heading.
    var name: String {
        switch self {
        case .ranges: "ranges"
        case .devices: "devices"
        case .vcpus: "vCPUs"
        }
    }

    private var number: WritableKeyPath<BenchmarkRow.Load, Int> {
        switch self {
        case .ranges: \.ranges
        case .devices: \.devices
        case .vcpus: \.vcpus
        }
    }

    /// A path's cost at each number, all else the same.
    struct Series {
        let path: String
        /// With one of what grows.
        let load: BenchmarkRow.Load
        var points: [(number: Int, value: Double)]
    }

    /// The paths that were measured with more than one of it, each with its row for one.
    func series(in rows: [BenchmarkRow]) -> [Series] {
        var result: [BenchmarkRow.Key: Series] = [:]
        for row in rows {
            var key = row.key
            key.load[keyPath: number] = 1
            result[key, default: Series(path: row.path, load: key.load, points: [])].points
                .append((row.load[keyPath: number], row.value))
        }
        return unique(
            rows.map { row in
                var key = row.key
                key.load[keyPath: number] = 1
                return key
            }
        ).compactMap { result[$0] }.filter { $0.points.contains { $0.number > 1 } }
    }
}

extension BenchmarkRow.Load {
    /// Whether there is more than one of anything, so that the row belongs to a series.
    var isScaled: Bool { vcpus > 1 || devices > 1 || ranges > 1 }
}
