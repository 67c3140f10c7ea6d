set -e
javac -d classes src/main/java/shop/*.java
jar --create --file shop.jar --main-class shop.Prices -C classes .
java -jar shop.jar
mvn -o -q -Dmaven.repo.local=/usr/share/maven-repo package >log
