package shop;
public class Prices {
  public static int price(String name) { return name.length(); }
  public static void main(String[] words) throws Exception {
    java.nio.file.Path made = java.nio.file.Files.createTempFile("order", ".json");
    java.nio.file.Files.delete(made);
    System.out.println(price("tea"));
  }
}
