/* DENOISED_EMULATOR: what the emulated GPU is like and what goes wrong with it. Read strictly: a setting that is not understood is no test. */
#include "cudart.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cudart {
namespace {

const char *const kind_names[DN_EMULATOR_KINDS] = {"other", "malloc", "pinned", "copy", "launch", "sync", "stream", "event", "capture", "graph"};

const struct {
    const char *name;
    cudaError_t code;
} whats[] = {{"oom", cudaErrorMemoryAllocation},       {"invalid", cudaErrorInvalidValue},    {"unsupported", cudaErrorNotSupported},
             {"resources", cudaErrorLaunchOutOfResources}, {"lost", cudaErrorUnknown},         {"illegal", cudaErrorIllegalAddress},
             {"ecc", cudaErrorECCUncorrectable},       {"failure", cudaErrorLaunchFailure},   {"timeout", cudaErrorLaunchTimeout}};

bool read_number(uint64_t *out, const std::string &text, uint64_t most)
{
    if (text.empty() || text.size() > 15 || text.find_first_not_of("0123456789") != std::string::npos)
        return false;
    *out = strtoull(text.c_str(), nullptr, 10);
    return *out <= most;
}

bool read_int(int *out, const std::string &text, uint64_t most)
{
    uint64_t number = 0;
    if (!read_number(&number, text, most))
        return false;
    *out = int(number);
    return true;
}

bool read_bytes(size_t *out, std::string text)
{
    unsigned shift = 0;
    if (!text.empty() && strchr("KMG", text.back())) {
        shift = text.back() == 'K' ? 10 : text.back() == 'M' ? 20 : 30;
        text.pop_back();
    }
    uint64_t number = 0;
    if (!read_number(&number, text, uint64_t(1) << 40 >> shift))
        return false;
    *out = size_t(number) << shift;
    return true;
}

/* KIND:N:WHAT. */
bool read_fault(Fault *out, const std::string &text)
{
    size_t first = text.find(':'), second = first == std::string::npos ? first : text.find(':', first + 1);
    if (second == std::string::npos)
        return false;
    std::string kind = text.substr(0, first), what = text.substr(second + 1);
    *out = Fault{};
    for (int k = DN_EMULATOR_MALLOC; k < DN_EMULATOR_KINDS; k++)
        if (kind == kind_names[k])
            out->kind = dn_emulator_kind(k);
    for (const auto &known : whats)
        if (what == known.name)
            out->code = known.code;
    out->told_later = out->kind == DN_EMULATOR_LAUNCH && breaks(out->code) && what != "lost";
    return out->kind != DN_EMULATOR_OTHER && out->code != cudaSuccess &&
           read_number(&out->call, text.substr(first + 1, second - first - 1), UINT64_MAX) && out->call > 0;
}

bool read_setting(Settings *out, const std::string &name, const std::string &value)
{
    uint64_t number = 0;
    if (name == "devices")
        return read_int(&out->devices, value, devices_max);
    if (name == "memory")
        return read_bytes(&out->memory, value);
    if (name == "driver")
        return read_int(&out->driver, value, 99999);
    if (name == "capability")
        return read_int(&out->capability, value, 999) && out->capability >= 10;
    if (name == "work") {
        out->late = value == "late";
        return value == "late" || value == "now";
    }
    if (name == "slow") {
        bool every = value.compare(0, 7, "launch:") == 0, first = value.compare(0, 6, "first:") == 0;
        bool good = (every || first) && read_number(&number, value.substr(every ? 7 : 6), 10000000);
        (every ? out->slow_microseconds : out->slow_first_microseconds) = unsigned(number);
        return good;
    }
    Fault fault;
    if (name != "fault" || !read_fault(&fault, value))
        return false;
    out->faults.push_back(fault);
    return true;
}

} // namespace

bool read_settings(Settings *out, const char *text)
{
    Settings settings;
    std::set<std::string> seen;
    std::string rest = text ? text : "";
    while (!rest.empty()) {
        size_t comma = rest.find(',');
        std::string setting = rest.substr(0, comma);
        rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
        size_t equals = setting.find('=');
        bool ends_badly = comma != std::string::npos && rest.empty();
        if (equals == std::string::npos || ends_badly || !read_setting(&settings, setting.substr(0, equals), setting.substr(equals + 1)))
            return false;
        std::string name = setting.substr(0, equals);
        if (name != "fault" && !seen.insert(name).second)
            return false;
    }
    *out = settings;
    return true;
}

} // namespace cudart
