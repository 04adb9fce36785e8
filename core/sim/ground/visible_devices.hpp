// The cards of the simulated machine, and those of them that CUDA_VISIBLE_DEVICES lets the process see.
//
// 1. A card has a UUID that depends on its number alone: GPU-…, or MIG-… where the machine's cards are split into MIG
//    instances (settings.hpp), each of which is a card here.
// 2. CUDA_VISIBLE_DEVICES is a list, in the order in which the process counts the cards. Its first entry says what it
//    consists of: numbers, or UUIDs and beginnings of UUIDs that fit one card alone.
// 3. An entry that is no card ends the list: what stands behind it is not seen. So -1 and an empty text hide all cards,
//    and cuInit answers CUDA_ERROR_NO_DEVICE. A card that is named twice makes it answer CUDA_ERROR_INVALID_DEVICE.
// 4. A process sees one MIG instance at most: the first that is named, by its UUID or by its card, or the first one.
//
// Source: 2 and 3, to the last blank, are the answers of two H200, driver 580.159.04, to 70 texts; 4 is NVIDIA's MIG
// User Guide, section Device Enumeration, and was not measured. The older names of MIG instances, MIG-GPU-…/1/0, are
// not known to that driver nor here.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "sim/ground/settings.hpp"

namespace cenote::sim {

struct card_description {
  int gpu;  ///< number of the physical card
  std::string name;
  std::size_t memory_bytes;
  std::string uuid;      ///< as text, of the instance where there are any
  std::string gpu_uuid;  ///< of the physical card
};

/// Every card of the machine, whether it is seen or not.
std::vector<card_description> cards_of(const machine_settings& settings);

/// Indices of the cards that the text lets a process see. Throws failure(CUDA_ERROR_INVALID_DEVICE).
std::vector<std::size_t> seen_by(std::string_view text, const std::vector<card_description>& cards);

/// Returns the devices that CUDA_VISIBLE_DEVICES lets the process see. Throws as seen_by does.
std::vector<card_description> visible_cards(const machine_settings& settings);

}  // namespace cenote::sim
