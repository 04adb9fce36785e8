// CUDA_VISIBLE_DEVICES: what a process sees of the machine, as two H200 with driver 580.159.04 answered.
#include <algorithm>
#include <cctype>
#include <cstdio>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

using Seen = std::vector<int>;

class SimVisibleDevices : public Sim {
 protected:
  void TearDown() override {
    unsetenv("CUDA_VISIBLE_DEVICES");
    EXPECT_EQ(0, cenote_sim_reset("devices=2,memory=1GiB", nullptr, 0));
    EXPECT_OK(cuCtxSetCurrent(contexts[0]));
    Sim::TearDown();
  }

  static std::string uuid(int index) {
    char text[64] = "";
    EXPECT_LT(0, cenote_sim_uuid(index, text, sizeof text));
    return text;
  }

  static std::string uuid_text_of(CUdevice device) {
    CUuuid bytes{};
    EXPECT_OK(cuDeviceGetUuid(&bytes, device));
    std::string text;
    for (const char byte : bytes.bytes) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(byte));
      text += digits;
    }
    for (const std::size_t at : {8, 13, 18, 23}) {
      text.insert(at, "-");
    }
    return text;
  }

  /// The machine's numbers of the devices that a process sees, in its own order.
  static Seen seen(const std::string& text, const char* machine = "devices=2,memory=1GiB") {
    setenv("CUDA_VISIBLE_DEVICES", text.c_str(), 1);
    EXPECT_EQ(0, cenote_sim_reset(machine, nullptr, 0));
    int count = 0;
    if (cenote_sim_initialized() == 0) {
      EXPECT_EQ(CUDA_ERROR_NO_DEVICE, cuInit(0));
      return {};
    }
    EXPECT_OK(cuDeviceGetCount(&count));
    Seen numbers;
    for (int device = 0; device < count; ++device) {
      for (int index = 0; index < 64; ++index) {
        char known[64] = "";
        if (cenote_sim_uuid(index, known, sizeof known) > 0 && std::string(known).substr(4) == uuid_text_of(device)) {
          numbers.push_back(index);
        }
      }
    }
    return numbers;
  }
};

TEST_F(SimVisibleDevices, numbers_are_in_the_order_that_is_written) {
  EXPECT_EQ((Seen{0, 1}), seen("0,1"));
  EXPECT_EQ((Seen{1, 0}), seen("1,0"));
  EXPECT_EQ(Seen{1}, seen("1"));
}

TEST_F(SimVisibleDevices, what_is_no_device_ends_the_list) {
  for (const char* const text : {"", " ", "-1", "-1,0", "2", "99", ",0", ",", "abc", "NoDevFiles", "none", "all",
                                 "99999999999999999999", "GPU-", "GPU", "gpu-1", "MIG-0/0/0"}) {
    EXPECT_EQ(Seen{}, seen(text)) << text;
  }
  for (const char* const text : {"0,-1,1", "0,2,1", "0,,1", "0,", "0,abc,1", "0,MIG-1,1"}) {
    EXPECT_EQ(Seen{0}, seen(text)) << text;
  }
}

TEST_F(SimVisibleDevices, numbers_are_read_as_c_reads_them) {
  for (const char* const text : {" 0", "0 ", "0;1", "+0", "00", "0x1", "0abc", "-0", "0-1", "0:0", "0.0"}) {
    EXPECT_EQ(Seen{0}, seen(text)) << text;
  }
  for (const char* const text : {"1 0", "01", "1e0", "1.0", "1abc", "4294967297", "\t1", "1\n"}) {
    EXPECT_EQ(Seen{1}, seen(text)) << text;
  }
  EXPECT_EQ((Seen{1, 0}), seen(" 1 , 0 "));
}

TEST_F(SimVisibleDevices, a_device_that_is_named_twice_is_an_error) {
  for (const std::string& text : {std::string("0,0"), std::string("0,1,0"), uuid(0) + "," + uuid(0)}) {
    setenv("CUDA_VISIBLE_DEVICES", text.c_str(), 1);
    char why[128] = "";
    EXPECT_EQ(-1, cenote_sim_reset("devices=2,memory=1GiB", why, sizeof why));
    EXPECT_STREQ("CUDA_VISIBLE_DEVICES names a device twice", why);
  }
}

TEST_F(SimVisibleDevices, uuids_and_their_beginnings_name_the_one_device_that_they_fit) {
  const std::string first = uuid(0);
  const std::string second = uuid(1);
  EXPECT_EQ(Seen{0}, seen(first));
  EXPECT_EQ((Seen{1, 0}), seen(second + "," + first));
  EXPECT_EQ((Seen{1, 0}), seen(second.substr(0, 8) + "," + first.substr(0, 8)));
  EXPECT_EQ(Seen{0}, seen(first + "0"));
  EXPECT_EQ(Seen{0}, seen(first + " "));
  EXPECT_EQ(Seen{0}, seen("MIG-" + first.substr(4)));
  std::string upper = first;
  for (char& letter : upper) {
    letter = static_cast<char>(std::toupper(letter));
  }
  EXPECT_EQ(Seen{0}, seen(upper));
  EXPECT_EQ(Seen{}, seen(" " + first));
  EXPECT_EQ(Seen{}, seen(first.substr(4)));
  EXPECT_EQ(Seen{}, seen("GPU-00000000-0000-0000-0000-000000000000"));
}

TEST_F(SimVisibleDevices, numbers_and_uuids_do_not_mix) {
  EXPECT_EQ(Seen{0}, seen("0," + uuid(1)));
  EXPECT_EQ(Seen{1}, seen(uuid(1) + ",0"));
}

TEST_F(SimVisibleDevices, uuids_of_many_devices_differ_from_their_first_digits_on) {
  EXPECT_EQ(0, cenote_sim_reset("devices=64,memory=1GiB", nullptr, 0));
  std::vector<std::string> beginnings;
  for (int index = 0; index < 64; ++index) {
    beginnings.push_back(uuid(index).substr(0, 10));
  }
  std::sort(beginnings.begin(), beginnings.end());
  EXPECT_EQ(beginnings.end(), std::adjacent_find(beginnings.begin(), beginnings.end()));
  char text[64];
  EXPECT_EQ(-1, cenote_sim_uuid(64, text, sizeof text));
  EXPECT_EQ(-1, cenote_sim_uuid(-1, text, sizeof text));
}

TEST_F(SimVisibleDevices, one_instance_of_a_card_is_seen_that_is_split) {
  const char* const split = "devices=2,memory=1GiB,mig=2";
  EXPECT_EQ(0, cenote_sim_reset(split, nullptr, 0));
  const std::vector<std::string> instances{uuid(0), uuid(1), uuid(2), uuid(3)};
  EXPECT_EQ(0U, instances[0].find("MIG-"));
  int count = 0;
  EXPECT_OK(cuDeviceGetCount(&count));
  EXPECT_EQ(1, count);
  std::size_t bytes = 0;
  EXPECT_OK(cuDeviceTotalMem(&bytes, 0));
  EXPECT_EQ(512 * MiB, bytes);
  for (int index = 0; index < 4; ++index) {
    EXPECT_EQ(Seen{index}, seen(instances[index], split));
    EXPECT_EQ(Seen{index}, seen(instances[index].substr(0, 12), split));
  }
  EXPECT_EQ(Seen{3}, seen(instances[3] + "," + instances[0], split));
  EXPECT_EQ(Seen{2}, seen("1,0", split)) << "the first one of that card";
  EXPECT_EQ(Seen{}, seen("2", split));
  EXPECT_EQ(Seen{}, seen("", split));
  EXPECT_EQ(Seen{}, seen("MIG-", split));
}

}  // namespace
}  // namespace cenote::sim_test
