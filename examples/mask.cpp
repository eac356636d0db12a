// A mask of photo.jpg by a network that `tag2mask export runs/mine --out model.onnx` wrote, without tag2mask.
// OpenCV 4.10 or newer: g++ -O2 mask.cpp -o mask $(pkg-config --cflags --libs opencv4)
#include <algorithm>
#include <iostream>
#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

int main() {
    const int size = 385;                         // `size` of the file's metadata
    const cv::Scalar mean(127.5, 127.5, 127.5);   // `mean` of the metadata, times 255
    cv::Mat photo = cv::imread("photo.jpg");
    double scale = std::min(1.0, double(size) / std::max(photo.cols, photo.rows));
    cv::resize(photo, photo, {}, scale, scale, cv::INTER_AREA);
    cv::Mat square(size, size, CV_8UC3, mean);
    photo.copyTo(square(cv::Rect(0, 0, photo.cols, photo.rows)));

    cv::dnn::Net network = cv::dnn::readNetFromONNX("model.onnx");
    network.setInput(cv::dnn::blobFromImage(square, 1 / 255.0, {}, {}, true));  // RGB
    cv::Mat probs = network.forward();  // 1 x classes x size x size

    cv::Mat mask(photo.rows, photo.cols, CV_8U);
    for (int y = 0; y < mask.rows; y++)
        for (int x = 0; x < mask.cols; x++) {
            int best = 0;
            auto p = [&](int c) { int at[] = {0, c, y, x}; return probs.at<float>(at); };
            for (int c = 1; c < probs.size[1]; c++)
                if (p(c) > p(best)) best = c;
            mask.at<uchar>(y, x) = uchar(best);
        }
    cv::imwrite("mask.png", mask);
    std::cout << cv::countNonZero(mask) << " pixels are not background\n";
}
